//! The exporter, and clients for it.

#![allow(dead_code)] // Each test program uses its part of it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The exporter, running. It is ended when dropped.
pub struct Monitor {
    child: Child,
    /// Where it listens, as it said: `http://127.0.0.1:8090/metrics`, or a unix socket.
    pub place: String,
    stderr: Option<JoinHandle<String>>,
    said: Arc<Mutex<String>>,
}

impl Monitor {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start_with(command)
    }

    /// The same, with the command's own standard input.
    pub fn start_with(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let place = line.trim().strip_prefix("listening on ").map(str::to_string);
        let said = Arc::new(Mutex::new(line.clone()));
        let all = said.clone();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|n| n > 0) {
                all.lock().unwrap().push_str(&line);
                line.clear();
            }
            all.lock().unwrap().clone()
        });
        let Some(place) = place else {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("monitor does not listen: {}", reader.join().unwrap());
        };
        Self {
            child,
            place,
            stderr: Some(reader),
            said,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        let rest = self.place.split_once("://").unwrap().1;
        rest.strip_suffix("/metrics").unwrap()
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        exchange(self.connect(), method, path, headers).unwrap()
    }

    /// The page of all metrics.
    pub fn scrape(&self) -> Page {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{}", response.text());
        Page::read(response.text())
    }

    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end: the exit status and all that it said.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.stderr.take().unwrap().join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("monitor does not end");
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| {
            let (key, _) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(())
        };
        let found = self.head.lines().find(|text| line(text).is_some())?;
        Some(found.split_once(':')?.1.trim())
    }
}

/// One request on a stream, which is closed after it.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Response> {
    let started = Instant::now();
    let headers: String = headers
        .iter()
        .map(|(key, value)| format!("{key}: {value}\r\n"))
        .collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(parse(&bytes, started.elapsed()))
}

/// Reads a whole answer.
pub fn parse(bytes: &[u8], took: Duration) -> Response {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("an answer with a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut response = Response {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
        took,
    };
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = dechunk(&response.body);
    }
    response
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a chunk's length");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
}

/// A page of metrics, read simply.
#[derive(Debug)]
pub struct Page {
    pub text: String,
}

impl Page {
    pub fn read(text: &str) -> Self {
        Self {
            text: text.to_string(),
        }
    }

    /// The samples of that name that have all of these labels.
    pub fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&str> {
        self.text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && labels.iter().all(|(key, value)| has_label(line, key, value))
            })
            .collect()
    }

    /// The one value of that name and these labels, as it is written.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> &str {
        match self.samples(name, labels)[..] {
            [line] => line.rsplit_once(' ').unwrap().1,
            ref lines => panic!("{} samples of {name} {labels:?}: {lines:#?}", lines.len()),
        }
    }

    /// The rows of one sandbox: whether it is up, and why not.
    #[track_caller]
    pub fn sandbox(&self, id: &str) -> (&str, Option<&str>) {
        let labels = [("sandbox_id", id)];
        let up = self.value("kata_monitor_sandbox_up", &labels);
        let failure = self.samples("kata_monitor_sandbox_failure", &labels);
        assert!(failure.len() <= 1, "{failure:?}");
        (up, failure.first().map(|line| label(line, "reason").unwrap()))
    }

    /// Panics where promtool finds a fault; its advice on names is another matter.
    #[track_caller]
    pub fn check(&self) {
        if !test_needs::can_check_with("promtool") {
            return;
        }
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = promtool.stdin.take().unwrap();
        let text = self.text.clone();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let output = promtool.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        let advice = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        // 3 is for advice, 1 for a page that cannot be read.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{advice}");
        for line in advice.lines() {
            let harmless = [
                "should have",
                "should not have",
                "should not include",
                "use base unit",
                "no help text",
            ];
            assert!(harmless.iter().any(|text| line.contains(text)), "{line}");
        }
    }
}

fn has_label(line: &str, key: &str, value: &str) -> bool {
    label(line, key) == Some(value)
}

/// A label's value, as it is written.
pub fn label<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let labels = line.split_once('{')?.1.rsplit_once('}')?.0;
    let start = labels
        .match_indices(&format!("{key}=\""))
        .find(|(at, _)| *at == 0 || labels.as_bytes()[at - 1] == b',')?
        .0;
    let rest = &labels[start + key.len() + 2..];
    let mut escaped = false;
    let end = rest.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })?;
    Some(&rest[..end])
}
