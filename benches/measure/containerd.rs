//! A private containerd for a benchmark, by the tests' shell library.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::which;

/// How many containers are started at once.
const AT_ONCE: usize = 4;

/// A containerd with everything of its own, and an image with a busybox in it. It ends with all that it started when
/// it is dropped, and also when the benchmark is killed.
pub struct Containerd {
    pub dir: PathBuf,
    /// Waits for the end of its input, which is ours, and then cleans up.
    cleaner: Option<Child>,
}

impl Containerd {
    /// Starts the machine's containerd; `shims` is where it finds shims that are not installed.
    pub fn start(shims: Option<&Path>) -> Self {
        let dir = std::env::temp_dir().join(format!("kr-bench-{}", std::process::id()));
        let mut containerd = Self { dir, cleaner: None };
        let dir = containerd.dir();
        containerd.cleaner = Some(
            Command::new("bash")
                .args(["-c", "cat; exec bash \"$0\" ctd_clean \"$1\"", &library(), &dir])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .process_group(0)
                .spawn()
                .unwrap(),
        );
        let bin = which("containerd").parent().unwrap().to_path_buf();
        let shims = shims.unwrap_or(&bin);
        containerd.script(&["ctd_start", &dir, bin.to_str().unwrap(), shims.to_str().unwrap()]);
        let image = containerd.dir.join("image.tar");
        let image = image.to_str().unwrap();
        containerd.script(&["ctd_image", image]);
        containerd.script(&["ctd_ctr", &dir, "-n", "default", "images", "import", image]);
        containerd
    }

    pub fn dir(&self) -> String {
        self.dir.display().to_string()
    }

    /// Its state directory, as `--state` takes it.
    pub fn state(&self) -> String {
        self.dir.join("state").display().to_string()
    }

    /// The id of the container of that number.
    pub fn id(number: usize) -> String {
        format!("bench-{}-{number:03}", std::process::id())
    }

    /// Runs so many containers, a few at a time, each with the command that it is given.
    pub fn run_many(&self, count: usize, command: impl Fn(usize) -> Vec<&'static str> + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            break;
                        }
                        let (dir, id) = (self.dir(), Self::id(number));
                        let mut arguments = vec!["ctd_run", &dir, "default", &id, "--"];
                        arguments.extend(command(number));
                        self.script(&arguments);
                    }
                });
            }
        });
    }

    /// The socket of a task's shim and the name of its task service, as its bundle in the namespace `default` has
    /// them.
    pub fn shim(&self, id: &str) -> (String, String) {
        let bundle = self
            .dir
            .join("state/io.containerd.runtime.v2.task/default")
            .join(id);
        let (socket, version) = match fs::read_to_string(bundle.join("bootstrap.json")) {
            Ok(json) => {
                let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                (
                    json["address"].as_str().unwrap().to_string(),
                    json["version"].to_string(),
                )
            }
            Err(_) => (
                fs::read_to_string(bundle.join("address")).unwrap(),
                "2".to_string(),
            ),
        };
        let socket = socket.trim().trim_start_matches("unix://").to_string();
        (socket, format!("containerd.task.v{version}.Task"))
    }

    /// Runs a function of the tests' shell library.
    pub fn script(&self, arguments: &[&str]) {
        let status = Command::new("bash")
            .arg(library())
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?} failed");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(mut cleaner) = self.cleaner.take() {
            // Closes its input first.
            let _ = cleaner.wait();
        }
    }
}

fn library() -> String {
    format!("{}/tests/lib/containerd.sh", env!("CARGO_MANIFEST_DIR"))
}
