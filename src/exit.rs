//! How a command ends without an answer.

use std::process::ExitCode;

use crate::output;

/// The answer could not be given.
const NO_ANSWER: u8 = 1;

/// The command line asks for what cannot be; clap uses the same status.
const WRONG_USAGE: u8 = 2;

/// Lines for stderr and an exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    lines: Vec<String>,
    status: u8,
}

impl Failure {
    /// The answer could not be given, for this reason.
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            lines: vec![line.into()],
            status: NO_ANSWER,
        }
    }

    /// The command line asks for what cannot be.
    pub fn usage(line: impl Into<String>) -> Self {
        Self {
            lines: vec![line.into()],
            status: WRONG_USAGE,
        }
    }

    /// Nobody is left to tell anything, and nothing went wrong.
    pub fn quiet() -> Self {
        Self {
            lines: Vec::new(),
            status: 0,
        }
    }

    /// The answer could not be given, or not all of it, and that has been said.
    pub fn told() -> Self {
        Self {
            lines: Vec::new(),
            status: NO_ANSWER,
        }
    }

    /// One more line: what was found, or what to do.
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Prints the lines; the exit status comes back.
    pub fn report(&self) -> ExitCode {
        for line in &self.lines {
            output::notice(line);
        }
        ExitCode::from(self.status)
    }
}
