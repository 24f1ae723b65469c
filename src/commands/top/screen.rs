//! The terminal: taken over, drawn on, and restored, whatever happens.
//!
//! It is opened a second time so that writing to it never blocks: a terminal that accepts nothing (a dead connection, a
//! stopped `less`) must not keep this program from ending. Until it has accepted a frame, no other is drawn.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

/// The alternate screen, no cursor, no line wrap, attributes reset.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J";

/// All of that back.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How long to wait for a terminal to accept what restores it.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The terminal as it was, for restoring it; the panic hook can only use this.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

struct Taken {
    terminal: File,
    settings: libc::termios,
}

/// The terminal, taken over while this lives.
pub struct Screen {
    terminal: AsyncFd<File>,
    shown: Buffer,
    next: Buffer,
    /// What the terminal has not accepted yet.
    waiting: Vec<u8>,
}

impl Screen {
    /// Takes the terminal over. Needs the runtime.
    pub fn open() -> io::Result<Self> {
        restore_on_panic();
        let terminal = reopen()?;
        enter(&terminal)?;
        let area = size(&terminal);
        // SAFETY: the file is owned by what it is registered with, and nothing else is put in its place.
        let terminal = unsafe { AsyncFd::register(terminal) }.map_err(|error| {
            restore();
            io::Error::from(error)
        })?;
        Ok(Self {
            terminal,
            shown: Buffer::empty(area),
            next: Buffer::empty(area),
            waiting: Vec::new(),
        })
    }

    /// Writes what is waiting, and returns the bytes of keys that were pressed; none if the terminal is gone. It can be
    /// cancelled without losing anything.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let wanted = if self.waiting.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let mut ready = self.terminal.ready(wanted).await?;
            let can = ready.ready();
            if can.is_writable() && !self.waiting.is_empty() {
                match ready.get_inner().write(&self.waiting) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => drop(self.waiting.drain(..written.min(self.waiting.len()))),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        ready.clear_ready_matching(Ready::WRITABLE)
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if can.is_readable() {
                let mut bytes = [0; 1024];
                match ready.get_inner().read(&mut bytes) {
                    Ok(read) => return Ok(bytes.get(..read).unwrap_or_default().to_vec()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        ready.clear_ready_matching(Ready::READABLE)
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Draws what has changed. Returns `false`, and draws nothing, if the terminal has not accepted the last frame yet.
    pub fn draw(&mut self, render: impl FnOnce(&mut Buffer)) -> bool {
        if !self.waiting.is_empty() {
            return false;
        }
        render(&mut self.next);
        paint(self.shown.diff_iter(&self.next), &mut self.waiting);
        std::mem::swap(&mut self.shown, &mut self.next);
        true
    }

    /// Makes the next frame draw everything, in the terminal's current size.
    pub fn refresh(&mut self) {
        let area = size(self.terminal.get_ref());
        self.shown = Buffer::empty(area);
        self.next = Buffer::empty(area);
        // The terminal may have accepted part of an escape sequence: end that first.
        self.waiting.clear();
        self.waiting.extend_from_slice(b"\x18\x1b[0m\x1b[2J");
    }

    /// Restores the terminal, stops this process until it is continued, and takes the terminal over again.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        stop();
        enter(self.terminal.get_ref())?;
        self.refresh();
        Ok(())
    }
}

/// Stops this process as if SIGTSTP were not caught. Unlike SIGSTOP, that does nothing if no shell could continue it (if
/// the terminal itself started it).
fn stop() {
    // SAFETY: the structures are ours, and what was there is put back before anything else can happen.
    unsafe {
        let mut usual: libc::sigaction = std::mem::zeroed();
        usual.sa_sigaction = libc::SIG_DFL;
        let mut caught: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGTSTP, &usual, &mut caught) == 0 {
            libc::raise(libc::SIGTSTP);
            libc::sigaction(libc::SIGTSTP, &caught, std::ptr::null_mut());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Opens the terminal of standard output again, so that making it non-blocking affects nobody else.
fn reopen() -> io::Result<File> {
    let open = |path: &str| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
    };
    // The first fails if the terminal is another user's (after su).
    open("/proc/self/fd/1").or_else(|_| open("/dev/tty"))
}

/// Takes the terminal over: keys come as they are pressed, and nothing is echoed.
fn enter(terminal: &File) -> io::Result<()> {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open, and tcgetattr fills the structure where it succeeds.
    let settings = unsafe {
        if libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        settings.assume_init()
    };
    let taken = Taken {
        terminal: terminal.try_clone()?,
        settings,
    };
    let mut raw = settings;
    // SAFETY: both work on a structure that is ours, and the descriptor is open.
    unsafe {
        libc::cfmakeraw(&mut raw);
        if libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
    write_all(terminal, ENTER.as_bytes())
}

/// Restores the terminal, once.
fn restore() {
    let taken = match TAKEN.try_lock() {
        Ok(mut taken) => taken.take(),
        Err(std::sync::TryLockError::Poisoned(taken)) => taken.into_inner().take(),
        Err(std::sync::TryLockError::WouldBlock) => None,
    };
    let Some(taken) = taken else { return };
    // If the terminal is gone, there is nothing to restore.
    let _ = write_all(&taken.terminal, LEAVE.as_bytes());
    // SAFETY: the descriptor is open, and the settings are those that it had.
    unsafe { libc::tcsetattr(taken.terminal.as_raw_fd(), libc::TCSANOW, &taken.settings) };
}

/// Makes a panic restore the terminal before it prints its message, which would be lost with the alternate screen. The
/// release build aborts after that, so nothing else could.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// Writes all of it, without waiting for long.
fn write_all(mut terminal: &File, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + LAST_WORDS;
    while !bytes.is_empty() {
        match terminal.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                let mut poll = libc::pollfd {
                    fd: terminal.as_raw_fd(),
                    events: libc::POLLOUT,
                    revents: 0,
                };
                // SAFETY: one structure, which is ours.
                unsafe { libc::poll(&mut poll, 1, 50) };
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The terminal's size; 80 by 24 if it is not known.
fn size(terminal: &File) -> Rect {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and the kernel fills the structure, which is ours.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    let known = result == 0 && size.ws_col > 0 && size.ws_row > 0;
    let (width, height) = if known {
        (size.ws_col, size.ws_row)
    } else {
        (80, 24)
    };
    // A buffer has a cell for each position: a terminal that claims to be huge is cut.
    Rect::new(0, 0, width.min(1000), height.min(500))
}

/// Writes cells as escape sequences (ECMA-48).
fn paint<'a>(cells: impl Iterator<Item = (u16, u16, &'a Cell)>, out: &mut Vec<u8>) {
    let mut text = String::new();
    let mut cursor = None;
    let mut style = None;
    for (x, y, cell) in cells {
        if cursor != Some((x, y)) {
            let _ = write!(text, "\x1b[{};{}H", u32::from(y) + 1, u32::from(x) + 1);
        }
        let wanted = (cell.fg, cell.bg, cell.modifier);
        if style != Some(wanted) {
            attributes(wanted, &mut text);
            style = Some(wanted);
        }
        text.push_str(cell.symbol());
        // Terminals disagree on the width of some characters: the next cell sets its own position.
        cursor = cell.symbol().is_ascii().then_some((x + 1, y));
    }
    if style.is_some() {
        text.push_str("\x1b[0m");
    }
    out.extend_from_slice(text.as_bytes());
}

fn attributes((fg, bg, modifier): (Color, Color, Modifier), text: &mut String) {
    text.push_str("\x1b[0");
    for (flag, code) in [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::REVERSED, 7)] {
        if modifier.contains(flag) {
            let _ = write!(text, ";{code}");
        }
    }
    for (colour, base) in [(fg, 30), (bg, 40)] {
        let number = match colour {
            Color::Red => 1,
            Color::Green => 2,
            Color::Yellow => 3,
            Color::Cyan => 6,
            // The view uses no other colours.
            _ => continue,
        };
        let _ = write!(text, ";{}", base + number);
    }
    text.push('m');
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::style::Style;

    fn painted(draw: impl FnOnce(&mut Buffer)) -> String {
        let area = Rect::new(0, 0, 10, 3);
        let (before, mut after) = (Buffer::empty(area), Buffer::empty(area));
        draw(&mut after);
        let mut out = Vec::new();
        paint(before.diff_iter(&after), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_changed_is_painted() {
        assert_eq!(painted(|_| ()), "");
        assert_eq!(
            painted(|buffer| {
                buffer.set_string(2, 1, "ab", Style::new());
                buffer.set_string(
                    7,
                    2,
                    "c",
                    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
                );
            }),
            "\x1b[2;3H\x1b[0mab\x1b[3;8H\x1b[0;1;31mc\x1b[0m"
        );
    }

    #[test]
    fn a_wide_character_does_not_shift_what_follows() {
        let text = painted(|buffer| {
            buffer.set_string(0, 0, "日x", Style::new());
        });
        assert_eq!(text, "\x1b[1;1H\x1b[0m日\x1b[1;3Hx\x1b[0m");
    }

    #[test]
    fn what_takes_the_terminal_over_is_given_back() {
        for mode in ["?1049", "?25", "?7"] {
            assert!(ENTER.contains(mode) && LEAVE.contains(mode));
        }
    }
}
