//! Writing answers to stdout and everything else to stderr.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::exit::Failure;
use crate::show::text::escape;

/// Writes an answer to stdout at once. A reader that has gone away ends the program quietly, as `| head` wants.
pub fn answer(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::quiet()),
        Err(error) => Err(Failure::new(format!("write to standard output: {error}"))),
    }
}

/// Writes a line to stderr. What shims and files say is in it, so it is made safe for a terminal.
pub fn notice(line: &str) {
    // Nothing can be said where stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{}", escape(line));
}

/// Says why there is no answer; the exit status comes back.
pub fn report(failure: &Failure) -> ExitCode {
    for line in failure.lines() {
        notice(line);
    }
    failure.status()
}
