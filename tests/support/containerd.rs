//! A private containerd and the containers that it runs.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;

use super::{
    command::{Ran, kata_runtime_with, signal},
    eventually, kata_runtime,
};

const IMAGE: &str = "localhost/busybox:1";
/// Its program is built from `tests/sandbox-shim`.
const TEST_SHIM: &str = "io.containerd.test-sandbox.v2";

/// Runs a test with each version of containerd, one after the other. Which one it was is told before the
/// failure that it caused. Skips the test where there is no containerd.
#[track_caller]
pub fn for_each_containerd(test: impl Fn(&Containerd)) {
    if !test_needs::can_run(&["root", "containerd", "runc", "busybox"]) {
        return;
    }
    if !shim().exists() {
        test_needs::skip("", "the shim of tests/sandbox-shim (cargo build --workspace)");
        return;
    }
    for directory in versions() {
        let containerd = Containerd::start(&directory, &[]);
        eprintln!("with containerd {}", containerd.version);
        test(&containerd);
    }
}

/// The same with containerds that serve CRI, for pods in the host's network.
#[track_caller]
pub fn for_each_cri(test: impl Fn(&Containerd)) {
    if !test_needs::can_run(&["root", "containerd", "runc", "busybox"]) {
        return;
    }
    for directory in versions() {
        let containerd = Containerd::start(&directory, &[("CTD_CRI", "1")]);
        containerd.import("k8s.io");
        eprintln!("with containerd {}", containerd.version);
        test(&containerd);
    }
}

#[track_caller]
fn versions() -> Vec<PathBuf> {
    if let Some(list) = env::var_os("KATA_RUNTIME_TEST_CONTAINERDS") {
        return env::split_paths(&list).collect();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let own = env::split_paths(&path).find(|directory| directory.join("containerd").exists());
    vec![own.expect("there is a containerd")]
}

/// The program that containerd launches for a pod.
fn shim() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kata-runtime")).with_file_name("containerd-shim-test-sandbox-v2")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Calls a function of `tests/lib/containerd.sh`.
fn library(function: &str, args: &[&Path]) -> io::Result<()> {
    library_with(function, args, &[])
}

fn library_with(function: &str, args: &[&Path], env: &[(&str, &str)]) -> io::Result<()> {
    let script = repository().join("tests/lib/containerd.sh");
    let output = Command::new("bash")
        .arg(script)
        .arg(function)
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{function}: {}",
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// A containerd of its own, with everything under one directory. It ends, with all that it started, when dropped.
pub struct Containerd {
    directory: PathBuf,
    bin: PathBuf,
    pub version: String,
}

impl Containerd {
    #[track_caller]
    fn start(bin: &Path, env: &[(&str, &str)]) -> Self {
        let base = env::var_os("KATA_RUNTIME_TEST_DIR").map_or_else(env::temp_dir, PathBuf::from);
        // Short, because sockets live in it.
        let directory = tempfile::Builder::new()
            .prefix("kr")
            .tempdir_in(base)
            .expect("a directory")
            .keep();
        let mut containerd = Self {
            directory,
            bin: bin.to_owned(),
            version: String::new(),
        };
        let shim = shim();
        let shims = shim.parent().expect("a directory");
        library_with("ctd_start", &[&containerd.directory, bin, shims], env).expect("containerd starts");
        containerd.import("default");
        containerd.version = containerd.ctr(&["--version"]).trim().to_owned();
        containerd
    }

    /// Imports the image that `tests/run.sh` made for all tests, or one made now.
    #[track_caller]
    fn import(&self, namespace: &str) {
        let image = env::var_os("KATA_RUNTIME_TEST_IMAGE").map_or_else(
            || {
                let image = self.directory.join("busybox.tar");
                library("ctd_image", &[&image]).expect("an image is made");
                image
            },
            PathBuf::from,
        );
        self.ctr(&[
            "--namespace",
            namespace,
            "image",
            "import",
            image.to_str().expect("a UTF-8 path"),
        ]);
    }

    /// Where it serves gRPC.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// What `--state` takes.
    pub fn state(&self) -> String {
        self.directory.join("state").display().to_string()
    }

    /// Runs ctr; what it says is returned, a failure fails the test.
    #[track_caller]
    pub fn ctr(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.bin.join("ctr"));
        command
            .arg("--address")
            .arg(self.directory.join("containerd.sock"))
            .args(args);
        let output = command.stdin(Stdio::null()).output().expect("ctr starts");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "ctr {args:?}: {}{stdout}",
            String::from_utf8_lossy(&output.stderr)
        );
        stdout
    }

    /// `kata-runtime` on this containerd's state.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Ran {
        kata_runtime(&[&["--state", &self.state()], args].concat())
    }

    #[track_caller]
    pub fn ask_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        kata_runtime_with(&[&["--state", &self.state()], args].concat(), env)
    }

    /// Starts a container under an id and in a namespace of choice; the options are ctr's.
    #[track_caller]
    pub fn run_as(&self, namespace: &str, id: &str, options: &[&str], command: &[&str]) -> Task<'_> {
        // ctd_clean looks after what is noted here, even if containerd has forgotten it.
        let ids = self.directory.join("ids");
        let noted = fs::read_to_string(&ids).unwrap_or_default();
        fs::write(&ids, format!("{noted}{namespace} {id}\n")).expect("the id is noted");
        if namespace != "default" {
            self.import(namespace);
        }
        let run = ["--namespace", namespace, "run", "--detach", "--null-io"];
        self.ctr(&[&run, options, &[IMAGE, id], command].concat());
        let task = Task {
            containerd: self,
            namespace: namespace.to_owned(),
            id: id.to_owned(),
        };
        eventually("the task runs", || task.status() == "RUNNING");
        task
    }

    /// Starts a container under runc's shim.
    #[track_caller]
    pub fn run_container(&self, options: &[&str], command: &[&str]) -> Task<'_> {
        self.run_as("default", &fresh_id("c"), options, command)
    }

    /// Starts a pod's sandbox under the test shim.
    #[track_caller]
    pub fn run_sandbox(&self, options: &[&str]) -> Task<'_> {
        let id = fresh_id("pod");
        let sandbox = format!("io.kubernetes.cri.sandbox-id={id}");
        let pod = [
            "--runtime",
            TEST_SHIM,
            "--annotation",
            "io.kubernetes.cri.container-type=sandbox",
            "--annotation",
            &sandbox,
        ];
        self.run_as("default", &id, &[&pod, options].concat(), &["sleep", "1000"])
    }

    /// Starts a container in a sandbox.
    #[track_caller]
    pub fn run_child(&self, sandbox: &Task, options: &[&str], command: &[&str]) -> Task<'_> {
        let sandbox = format!("io.kubernetes.cri.sandbox-id={}", sandbox.id);
        let pod = [
            "--runtime",
            TEST_SHIM,
            "--annotation",
            "io.kubernetes.cri.container-type=container",
            "--annotation",
            &sandbox,
        ];
        self.run_as("default", &fresh_id("app"), &[&pod, options].concat(), command)
    }

    /// Ends containerd itself, at once. Its shims and containers go on.
    #[track_caller]
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.directory.join("containerd.pid")).expect("containerd has a pid");
        let pid = pid.trim().parse().expect("a number");
        signal(pid, Signal::SIGKILL);
        eventually("containerd is gone", || gone(pid));
    }

    /// The processes that carry this containerd's address and the given id: shims.
    fn shims(&self, id: &str) -> Vec<u32> {
        let address = format!("\0-address\0{}/containerd.sock\0", self.directory.display());
        let id = format!("\0-id\0{id}\0");
        let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains(&address) && line.contains(&id)
        })
        .collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(e) = library("ctd_clean", &[&self.directory]) {
            eprintln!("cleaning up {}: {e}", self.directory.display());
        }
    }
}

/// Whether containers have cgroup v2 here.
pub fn is_cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// An id that nobody on this machine had before.
pub fn fresh_id(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_micros();
    format!(
        "{prefix}-{now:x}-{:x}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Whether every thread of a process is stopped.
fn stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        // The state is the first word after the name, which is in parentheses.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

/// A process that has ended; one that only waits to be collected has.
fn gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// A running container.
pub struct Task<'a> {
    containerd: &'a Containerd,
    pub namespace: String,
    pub id: String,
}

impl Task<'_> {
    pub fn bundle(&self) -> PathBuf {
        let tasks = Path::new(&self.containerd.state()).join("io.containerd.runtime.v2.task");
        tasks.join(&self.namespace).join(&self.id)
    }

    fn row(&self) -> Option<(String, String)> {
        let table = self
            .containerd
            .ctr(&["--namespace", &self.namespace, "task", "ls"]);
        table.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == self.id).then_some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
    }

    /// `RUNNING`, `STOPPED`, …; empty for a task that is not there.
    pub fn status(&self) -> String {
        self.row().map(|(_, status)| status).unwrap_or_default()
    }

    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.row()
            .and_then(|(pid, _)| pid.parse().ok())
            .expect("the task runs")
    }

    /// Ends the container's process; the task stays, stopped.
    #[track_caller]
    pub fn stop(&self) {
        let kill = [
            "--namespace",
            &self.namespace,
            "task",
            "kill",
            "--signal",
            "KILL",
            &self.id,
        ];
        self.containerd.ctr(&kill);
        eventually("the task has stopped", || self.status() == "STOPPED");
    }

    /// The address in the bundle without its scheme.
    #[track_caller]
    pub fn socket(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.bundle().join(name)).ok();
        let bootstrap = read("bootstrap.json").map(|text| {
            let parsed: serde_json::Value = serde_json::from_str(&text).expect("bootstrap.json is JSON");
            parsed["address"].as_str().expect("it has an address").to_owned()
        });
        let address = bootstrap
            .or_else(|| read("address"))
            .expect("the bundle has an address");
        address.trim_start_matches("unix://").to_owned()
    }

    /// The process of this container's shim; for a container in a pod, give its sandbox instead.
    #[track_caller]
    pub fn shim(&self) -> u32 {
        let shims = self.containerd.shims(&self.id);
        assert_eq!(shims.len(), 1, "one shim serves {}", self.id);
        shims[0]
    }

    /// Whether a shim process was started for this container.
    pub fn has_shim(&self) -> bool {
        !self.containerd.shims(&self.id).is_empty()
    }

    #[track_caller]
    pub fn signal_shim(&self, which: Signal) {
        let shim = self.shim();
        signal(shim, which);
        if which == Signal::SIGKILL {
            eventually("the shim is gone", || gone(shim));
        }
        if which == Signal::SIGSTOP {
            // Its other threads go on until one of them has taken the signal.
            eventually("the shim has stopped", || stopped(shim));
        }
    }

    /// A number from the container's real cgroup: `file` is its name on cgroup v1, under that controller.
    #[track_caller]
    pub fn cgroup(&self, controller: &str, file: &str) -> u64 {
        let text = self.cgroup_text(controller, file);
        text.trim()
            .parse()
            .unwrap_or_else(|e| panic!("{controller}/{file}: {e} in {text:?}"))
    }

    #[track_caller]
    pub fn cgroup_text(&self, controller: &str, file: &str) -> String {
        let file = self.cgroup_file(controller, file);
        fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    /// The CPU time that the container has used, in nanoseconds.
    #[track_caller]
    pub fn cpu_time(&self) -> u64 {
        if is_cgroup_v2() {
            return self.cgroup_key("cpu", "cpu.stat", "usage_usec") * 1000;
        }
        self.cgroup("cpuacct", "cpuacct.usage")
    }

    /// How many of its processes were OOM-killed.
    #[track_caller]
    pub fn oom_kills(&self) -> u64 {
        let file = if is_cgroup_v2() {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        self.cgroup_key("memory", file, "oom_kill")
    }

    /// A number from a file that has a key on each line.
    #[track_caller]
    pub fn cgroup_key(&self, controller: &str, file: &str, key: &str) -> u64 {
        let text = self.cgroup_text(controller, file);
        let number = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
        number.unwrap_or_else(|| panic!("{key} of {file} in {text:?}"))
    }

    /// Writes to a file of the container's cgroup.
    #[track_caller]
    pub fn set_cgroup(&self, controller: &str, file: &str, text: &str) {
        let file = self.cgroup_file(controller, file);
        fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    /// Where a file of the container's cgroup is.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, file: &str) -> PathBuf {
        let lines = fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).expect("the process is there");
        let path = |wanted: &str| {
            lines.lines().find_map(|line| {
                let (names, path) = line.split_once(':')?.1.split_once(':')?;
                names.split(',').any(|name| name == wanted).then_some(path)
            })
        };
        // cgroup v2 has one directory for all controllers, on the line without names.
        let (mount, path) = if is_cgroup_v2() {
            ("", path("").expect("it is in a cgroup"))
        } else {
            (
                controller,
                path(controller).expect("it is in a cgroup of this controller"),
            )
        };
        Path::new("/sys/fs/cgroup")
            .join(mount)
            .join(path.trim_start_matches('/'))
            .join(file)
    }
}
