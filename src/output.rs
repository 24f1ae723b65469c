//! Writing answers to stdout and everything else to stderr.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::exit::Failure;
use crate::show::text::escape;

/// Writes an answer to stdout and flushes it. If the reader has gone away (`| head`), the program ends quietly.
pub fn answer(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::quiet()),
        Err(error) => Err(Failure::new(format!("write to standard output: {error}"))),
    }
}

/// Writes a line to stderr, made safe for a terminal: it can quote shims and files.
pub fn notice(line: &str) {
    // Without stderr there is nowhere to report to.
    let _ = writeln!(io::stderr().lock(), "{}", escape(line));
}

/// Writes a failure's lines to stderr and returns its exit status.
pub fn report(failure: &Failure) -> ExitCode {
    for line in failure.lines() {
        notice(line);
    }
    failure.status()
}
