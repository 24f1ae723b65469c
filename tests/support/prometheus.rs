//! Debian's Prometheus, run on a configuration of the test's.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A Prometheus, which is ended when dropped.
pub struct Prometheus {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one with this configuration; `rules` is the text of `rules.yml` beside it.
    pub fn start(config: &str, rules: &str) -> Self {
        // Somebody else may take the port in between; then Prometheus ends, and another is tried.
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("prometheus.yml"), config).unwrap();
            fs::write(dir.path().join("rules.yml"), rules).unwrap();
            check(&dir.path().join("prometheus.yml"));
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let log = File::create(dir.path().join("log")).unwrap();
            let child = Command::new("prometheus")
                .arg(format!(
                    "--config.file={}",
                    dir.path().join("prometheus.yml").display()
                ))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    dir.path().join("data").display()
                ))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .arg("--log.level=warn")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            let mut prometheus = Self { child, port, dir };
            if prometheus.is_ready() {
                return prometheus;
            }
            let log = prometheus.log();
            assert!(
                log.contains("address already in use"),
                "prometheus does not start: {log}"
            );
        }
        panic!("prometheus finds no port");
    }

    fn is_ready(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if get(self.port, "/-/ready").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    #[allow(dead_code)] // Each test program uses its part of it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What a query gives now: labels and value of each series.
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let answer = self.api(&format!("/api/v1/query?query={}", encode(query)));
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let read = |one: &Value| {
            (
                one["metric"].clone(),
                one["value"][1].as_str().unwrap().parse().unwrap(),
            )
        };
        series.iter().map(read).collect()
    }

    /// Waits until a query gives so many series.
    #[track_caller]
    pub fn eventually(&self, query: &str, count: usize) -> Vec<(Value, f64)> {
        self.eventually_so(query, |found| found.len() == count)
    }

    /// Waits until what a query gives is right.
    #[track_caller]
    pub fn eventually_so(&self, query: &str, is_so: impl Fn(&[(Value, f64)]) -> bool) -> Vec<(Value, f64)> {
        let started = Instant::now();
        loop {
            let found = self.query(query);
            if is_so(&found) {
                return found;
            }
            let targets = || self.api("/api/v1/targets")["data"]["activeTargets"].to_string();
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{query} gives {found:?}, targets are {}; {}",
                targets(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn api(&self, path: &str) -> Value {
        let answer = get(self.port, path).expect("prometheus answers");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn check(config: &Path) {
    let output = Command::new("promtool")
        .args(["check", "config"])
        .arg(config)
        .output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// By HTTP/1.0, so that the answer is not chunked.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.replacen("HTTP/1.0 ", "HTTP/1.1 ", 1))
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
