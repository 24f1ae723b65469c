//! The signals that matter to a program that has taken over a terminal.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The terminal's size has changed.
    Resize,
    /// Stop until continued.
    Suspend,
    /// End, with the signal's number.
    End(i32),
}

/// Listens for them until the process ends.
pub struct Signals {
    resize: unix::Signal,
    suspend: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
}

impl Signals {
    /// Needs the runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            resize: unix::signal(SignalKind::window_change())?,
            suspend: unix::signal(SignalKind::from_raw(libc::SIGTSTP))?,
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            quit: unix::signal(SignalKind::quit())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::End(libc::SIGTERM),
            _ = self.hang_up.recv() => Signal::End(libc::SIGHUP),
            _ = self.interrupt.recv() => Signal::End(libc::SIGINT),
            _ = self.quit.recv() => Signal::End(libc::SIGQUIT),
            _ = self.suspend.recv() => Signal::Suspend,
            _ = self.resize.recv() => Signal::Resize,
        }
    }
}

impl Signal {
    /// Ends this process by the signal that it received, so that its parent can tell.
    pub fn die<T>(self) -> Result<T, crate::exit::Failure> {
        let number = match self {
            Self::End(number) => number,
            Self::Resize | Self::Suspend => libc::SIGTERM,
        };
        // SAFETY: neither call has preconditions; what was listening for the signal is over.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
            libc::raise(number);
        }
        // Not reached where the signal is not blocked.
        Err(crate::exit::Failure::new("ended by a signal"))
    }
}
