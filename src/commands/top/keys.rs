//! From the bytes that a terminal sends to keys. No I/O, and nothing of the program: a fuzz target has this file alone.

/// The longest escape sequence that is read to its end, in bytes. Terminals send shorter ones for keys.
const MAX_SEQUENCE: usize = 32;

const ESCAPE: u8 = 0x1b;

/// A key of the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    /// With the control key held; in lower case.
    Control(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
}

/// Turns bytes into keys, however they are split up.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The bytes of an unfinished key.
    pending: Vec<u8>,
}

impl Decoder {
    /// The keys that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        for byte in bytes {
            self.pending.push(*byte);
            if let [ESCAPE, next] = self.pending.as_slice()
                && !matches!(next, b'[' | b'O')
            {
                // No sequence starts like this: it is the escape key, with another key typed right after it.
                keys.push(Key::Escape);
                self.pending.remove(0);
            }
            match decode(&self.pending) {
                Decoded::More if self.pending.len() < MAX_SEQUENCE => {}
                Decoded::More | Decoded::Nothing => self.pending.clear(),
                Decoded::Key(key) => {
                    self.pending.clear();
                    keys.push(key);
                }
            }
        }
        keys
    }

    /// Whether a key is unfinished. Only time tells whether it was the escape key.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing more has arrived for a while: returns the key that was pressed.
    pub fn settle(&mut self) -> Option<Key> {
        let alone = self.pending == [ESCAPE];
        self.pending.clear();
        alone.then_some(Key::Escape)
    }
}

enum Decoded {
    Key(Key),
    /// It is not complete.
    More,
    /// A complete sequence that means nothing here.
    Nothing,
}

fn decode(bytes: &[u8]) -> Decoded {
    match bytes {
        [] | [ESCAPE] | [ESCAPE, b'[' | b'O'] => Decoded::More,
        [ESCAPE, b'O', last] => named(b"", *last),
        [ESCAPE, b'[', parameters @ .., last] => match last {
            0x40..=0x7e => named(parameters, *last),
            0x20..=0x3f => Decoded::More,
            _ => Decoded::Nothing,
        },
        [ESCAPE, ..] => Decoded::Nothing,
        [b'\r' | b'\n'] => Decoded::Key(Key::Enter),
        [0x7f | 0x08] => Decoded::Key(Key::Backspace),
        [byte @ 1..=0x1a] => Decoded::Key(Key::Control(char::from(byte + 0x60))),
        [0..=0x1f] => Decoded::Nothing,
        text => match std::str::from_utf8(text) {
            Ok(text) => match text.chars().next() {
                Some(character) if !character.is_control() => Decoded::Key(Key::Char(character)),
                _ => Decoded::Nothing,
            },
            // Part of a character.
            Err(error) if error.error_len().is_none() => Decoded::More,
            Err(_) => Decoded::Nothing,
        },
    }
}

/// The key of a control sequence (xterm's and the Linux console's).
fn named(parameters: &[u8], last: u8) -> Decoded {
    let key = match (parameters, last) {
        (_, b'A') => Key::Up,
        (_, b'B') => Key::Down,
        (_, b'C') => Key::Right,
        (_, b'D') => Key::Left,
        (_, b'H') | (b"1" | b"7", b'~') => Key::Home,
        (_, b'F') | (b"4" | b"8", b'~') => Key::End,
        (b"5", b'~') => Key::PageUp,
        (b"6", b'~') => Key::PageDown,
        _ => return Decoded::Nothing,
    };
    Decoded::Key(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        Decoder::default().feed(bytes)
    }

    #[test]
    fn keys_as_terminals_send_them() {
        // `infocmp xterm-256color`, `infocmp linux` and `infocmp tmux`, in normal and application mode.
        for (bytes, key) in [
            (&b"q"[..], Key::Char('q')),
            ("ä".as_bytes(), Key::Char('ä')),
            ("日".as_bytes(), Key::Char('日')),
            (b"\r", Key::Enter),
            (b"\x7f", Key::Backspace),
            (b"\x08", Key::Backspace),
            (b"\x03", Key::Control('c')),
            (b"\x1a", Key::Control('z')),
            (b"\x0c", Key::Control('l')),
            (b"\x1b[A", Key::Up),
            (b"\x1bOA", Key::Up),
            (b"\x1b[B", Key::Down),
            (b"\x1bOC", Key::Right),
            (b"\x1b[D", Key::Left),
            (b"\x1b[H", Key::Home),
            (b"\x1b[1~", Key::Home),
            (b"\x1bOH", Key::Home),
            (b"\x1b[4~", Key::End),
            (b"\x1b[F", Key::End),
            (b"\x1b[5~", Key::PageUp),
            (b"\x1b[6~", Key::PageDown),
            (b"\x1b[1;5A", Key::Up),
        ] {
            assert_eq!(keys(bytes), [key], "{bytes:?}");
        }
    }

    #[test]
    fn what_means_nothing_is_swallowed_whole() {
        for bytes in [
            &b"\x1b[3~"[..],
            b"\x1b[200~",
            b"\x1b[?1;2c",
            b"\x00",
            b"\x1f",
            b"\xff",
            b"\x1b[M",
        ] {
            assert_eq!(keys(bytes), [], "{bytes:?}");
        }
        assert_eq!(keys(b"\x1b[200~q"), [Key::Char('q')]);
        assert_eq!(
            keys(&[b"\x1b[".as_slice(), &[b'1'; 100]].concat()).first(),
            Some(&Key::Char('1'))
        );
    }

    #[test]
    fn a_key_may_come_in_pieces_and_escape_alone_is_told_by_time() {
        let mut decoder = Decoder::default();
        assert!(decoder.feed(b"\x1b").is_empty() && decoder.is_waiting());
        assert_eq!(decoder.feed(b"[A"), [Key::Up]);
        assert!(!decoder.is_waiting());
        assert!(decoder.feed(&"日".as_bytes()[..2]).is_empty());
        assert_eq!(decoder.feed(&"日".as_bytes()[2..]), [Key::Char('日')]);
        assert!(decoder.feed(b"\x1b").is_empty());
        assert_eq!(decoder.settle(), Some(Key::Escape));
        assert!(decoder.feed(b"\x1b[").is_empty());
        assert_eq!(decoder.settle(), None, "a sequence that never ended");
        assert_eq!(decoder.feed(b"q"), [Key::Char('q')]);
    }

    #[test]
    fn a_key_typed_right_after_escape_is_a_key_of_its_own() {
        assert_eq!(keys(b"\x1bq"), [Key::Escape, Key::Char('q')]);
        assert_eq!(keys("\x1bä".as_bytes()), [Key::Escape, Key::Char('ä')]);
        assert_eq!(keys(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"\x1b\x1b"), [Key::Escape]);
        assert_eq!(decoder.settle(), Some(Key::Escape));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_pile_up(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            prop_assert!(decoder.pending.len() < MAX_SEQUENCE);
        }
    }
}
