//! A terminal for tests: a tmux server of its own, in which a shell runs a program.

#![allow(dead_code)] // Each test file uses its part of it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a loaded machine may take to draw something.
const DEADLINE: Duration = Duration::from_secs(20);

/// A terminal in which a program runs. It ends, with all that runs in it, when dropped.
pub struct Tmux {
    socket: PathBuf,
    directory: tempfile::TempDir,
    /// The pid of the tmux server, once it was asked for: a stopped one cannot tell.
    server: OnceLock<String>,
}

impl Tmux {
    /// Runs a command in a terminal of so many columns and lines. When it has ended, its status is printed
    /// (`status=0`); when it is stopped, `stopped`, and what is typed then goes to the shell.
    pub fn start((width, height): (u16, u16), command: &str) -> Self {
        let tmux = Self::new();
        // An interactive shell has job control: it notices a stopped program and knows `fg`.
        let script = tmux.path("run.sh");
        let (before, after) = (tmux.path("before"), tmux.path("after"));
        let text = format!(
            "PS1='$ '; stty -g >{before}\n\
             trap : INT; set -m\n\
             ( echo $BASHPID >{pid}; exec {command} )\n\
             status=$?; while [ $status = 148 ] || [ $status = 147 ]; do echo stopped; read -r line; fg >/dev/null; status=$?; done\n\
             stty -g >{after}; echo status=$status\n\
             sleep 1000\n",
            pid = tmux.path("pid"),
        );
        std::fs::write(&script, text).expect("the script is written");
        tmux.open(width, height, &["bash", &script]);
        tmux
    }

    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().expect("a directory");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            socket: directory.path().join(format!("tmux-{number}")),
            directory,
            server: OnceLock::new(),
        }
    }

    /// Runs a command with no shell around it: it is the terminal's only program.
    pub fn bare((width, height): (u16, u16), command: &str) -> Self {
        let tmux = Self::new();
        let words: Vec<_> = command.split(' ').collect();
        tmux.open(width, height, &words);
        tmux
    }

    fn open(&self, width: u16, height: u16, command: &[&str]) {
        let (width, height) = (width.to_string(), height.to_string());
        let session = [
            "-f",
            "/dev/null",
            "-u",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
        ];
        self.tmux(&[&session[..], &["env", "LC_ALL=C.UTF-8"], command].concat());
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(&self.socket)
            .args(arguments)
            .env_remove("TMUX")
            .stdin(Stdio::null())
            .output()
            .expect("tmux is installed: run the tests by tests/run.sh");
        assert!(
            output.status.success(),
            "tmux {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("tmux speaks UTF-8")
    }

    /// Presses keys, named as tmux names them.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// The lines of the screen, without blanks at their ends.
    pub fn screen(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p"]);
        text.lines().map(|line| line.trim_end().to_string()).collect()
    }

    /// The same with the sequences for styles and colours.
    pub fn styled(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
            .lines()
            .map(str::to_string)
            .collect()
    }

    /// What tmux says of the pane, such as `#{alternate_on}`.
    pub fn value(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format]).trim().to_string()
    }

    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&[
            "resize-window",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
        ]);
    }

    /// Waits until the screen is as it should be, and gives it back.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(
                begin.elapsed() < DEADLINE,
                "waited in vain for {what}: {screen:#?}"
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Sends the program a signal.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.path("pid")).expect("it has started");
        let status = Command::new("kill")
            .args(["-s", name, pid.trim()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Stops the terminal itself: what is written to it stays unread.
    pub fn freeze(&self) {
        self.signal_server("STOP");
    }

    pub fn thaw(&self) {
        self.signal_server("CONT");
    }

    fn signal_server(&self, name: &str) {
        let pid = self.server.get_or_init(|| self.value("#{pid}"));
        let status = Command::new("kill")
            .args(["-s", name, pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// The pid of the program.
    pub fn pid(&self) -> u32 {
        let pid = std::fs::read_to_string(self.path("pid")).expect("it has started");
        pid.trim().parse().expect("a number")
    }

    /// The terminal's settings before the program ran (`stty -g`).
    pub fn settings_before(&self) -> String {
        std::fs::read_to_string(self.path("before")).expect("noted")
    }

    /// The same after it ended.
    pub fn settings_after(&self) -> String {
        std::fs::read_to_string(self.path("after")).expect("noted")
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        if self.server.get().is_some() {
            self.thaw();
        }
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(&self.socket)
            .arg("kill-server")
            .output();
    }
}

/// The words of a line after the name that it begins with.
pub fn cells(screen: &[String], name: &str) -> Vec<String> {
    let line = screen
        .iter()
        .find(|line| line.contains(name))
        .cloned()
        .unwrap_or_default();
    let rest = line.split(name).nth(1).unwrap_or_default();
    rest.split_whitespace().map(str::to_string).collect()
}
