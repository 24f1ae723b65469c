//! Where a reader is in a line, and steps of the kinds that the format is made of.

#![allow(clippy::indexing_slicing)] // Only the table that has an entry for every byte.

/// A byte that a metric's name may begin with.
pub(super) const METRIC_START: u8 = 1;
/// A byte that may be in a metric's name.
pub(super) const METRIC: u8 = 2;
/// A byte that a label's name may begin with.
pub(super) const LABEL_START: u8 = 4;
/// A byte that may be in a label's name.
pub(super) const LABEL: u8 = 8;

/// Which bytes may stand where in a name.
static CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => METRIC_START | METRIC | LABEL_START | LABEL,
            b'0'..=b'9' => METRIC | LABEL,
            b':' => METRIC_START | METRIC,
            _ => 0,
        };
        byte += 1;
    }
    class
};

/// Past the end every byte reads as a line feed, which no line has in it.
pub(super) struct Cursor<'a> {
    line: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(line: &'a [u8]) -> Self {
        Self { line, at: 0 }
    }

    pub fn peek(&self) -> u8 {
        self.line.get(self.at).copied().unwrap_or(b'\n')
    }

    pub fn since(&self, start: usize) -> &'a [u8] {
        self.line.get(start..self.at).unwrap_or_default()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or_default()
    }

    /// Reads bytes as long as they are of a kind.
    fn while_is(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|&byte| !is(byte)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// Steps to the next quote or backslash, eight bytes at a time, or to the end of the line.
    pub fn skip_unescaped(&mut self) {
        let mut rest = self.rest();
        while let Some((eight, more)) = rest.split_first_chunk() {
            let found = zeros(u64::from_le_bytes(*eight) ^ each(b'"'))
                | zeros(u64::from_le_bytes(*eight) ^ each(b'\\'));
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
            rest = more;
        }
        self.while_is(|byte| byte != b'"' && byte != b'\\');
    }

    /// Steps over blanks; whether there were none.
    #[inline]
    pub fn no_blanks(&mut self) -> bool {
        !matches!(self.peek(), b' ' | b'\t') || self.blanks().is_empty()
    }

    pub fn blanks(&mut self) -> &'a [u8] {
        self.while_is(|byte| byte == b' ' || byte == b'\t')
    }

    /// Reads a name; empty where there is none.
    pub fn name(&mut self, first: u8, next: u8) -> &'a [u8] {
        if CLASS[usize::from(self.peek())] & first == 0 {
            return &[];
        }
        self.while_is(|byte| CLASS[usize::from(byte)] & next != 0)
    }

    /// Reads this very name, if it is the one that is here.
    pub fn known_name(&mut self, known: &[u8]) -> Option<&'a [u8]> {
        let (name, rest) = self.rest().split_at_checked(known.len())?;
        let ends = rest
            .first()
            .is_none_or(|&byte| CLASS[usize::from(byte)] & METRIC == 0);
        (ends && name == known).then(|| {
            self.at += known.len();
            name
        })
    }

    /// Reads up to the next blank or the end of the line.
    pub fn word(&mut self) -> &'a [u8] {
        self.while_is(|byte| byte != b' ' && byte != b'\t')
    }
}

const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The highest bit of every byte that is zero, up to the first such byte (of those behind it, some may be
/// wrong).
const fn zeros(eight: u64) -> u64 {
    eight.wrapping_sub(each(1)) & !eight & each(0x80)
}
