//! The `kata-runtime` binary, run with a deadline.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// No call in a test takes this long; one that does hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// A finished call.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    /// The answer of a call that has to succeed and has nothing to say besides.
    #[track_caller]
    pub fn answer(&self) -> &str {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        assert_eq!(self.stderr, "", "nothing to complain about");
        &self.stdout
    }

    /// What a call says that has to fail without an answer.
    #[track_caller]
    pub fn complaint(&self) -> &str {
        assert_eq!(
            self.code,
            Some(1),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        assert_eq!(self.stdout, "", "no answer beside an error");
        &self.stderr
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        parse(self.answer())
    }
}

#[track_caller]
fn parse(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kata-runtime"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env_remove("CONTAINERD_NAMESPACE");
    command
}

/// Runs the binary to its end.
#[track_caller]
pub fn kata_runtime(args: &[&str]) -> Ran {
    kata_runtime_with(args, &[])
}

/// Runs the binary to its end with additional environment variables.
#[track_caller]
pub fn kata_runtime_with(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let begin = Instant::now();
    let mut running = Running::spawn(command(args).envs(env.iter().copied()));
    let mut stdout = String::new();
    let mut pipe = running.stdout.take().expect("stdout is a pipe");
    let reader = thread::spawn(move || pipe.read_to_string(&mut stdout).map(|_| stdout));
    let (status, stderr) = running.finish();
    let stdout = reader.join().expect("reader").expect("stdout is UTF-8");
    Ran {
        code: status.code(),
        stdout,
        stderr,
        took: begin.elapsed(),
    }
}

/// A call that goes on, such as a stream of events.
pub struct Running {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(&mut command(args))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().map(BufReader::new);
        let mut pipe = child.stderr.take().expect("stderr is a pipe");
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).expect("stderr is UTF-8");
            text
        });
        Self {
            child,
            stdout,
            stderr: Some(stderr),
        }
    }

    /// The next line of the answer; `None` at its end. A test's own timeout covers a line that never comes.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self
            .stdout
            .as_mut()
            .expect("not closed yet")
            .read_line(&mut line)
            .expect("stdout is UTF-8");
        (read > 0).then_some(line)
    }

    /// The next line, which has to be JSON.
    #[track_caller]
    pub fn event(&mut self) -> serde_json::Value {
        parse(&self.line().expect("one more event"))
    }

    /// Closes the reading end of the answer, as `head` does when it has enough.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// How many threads the process has.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).map_or(0, Iterator::count)
    }

    pub fn interrupt(&self) {
        signal(self.child.id(), nix::sys::signal::Signal::SIGINT);
    }

    /// Waits for the end; what was written to stderr comes with it.
    #[track_caller]
    pub fn finish(&mut self) -> (ExitStatus, String) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting") {
                let stderr = self.stderr.take().expect("finished once").join().expect("reader");
                return (status, stderr);
            }
            if begin.elapsed() > DEADLINE {
                self.child.kill().ok();
                let stderr = self.stderr.take().map(JoinHandle::join);
                panic!("still running after {DEADLINE:?}; stderr: {stderr:?}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, signal).expect("the process is there");
}
