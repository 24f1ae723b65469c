//! What one question costs: `events --stats` and `metrics` as whole processes, beside other programs that ask the
//! same shim in the same run, and finding one container among ten thousand.
//!
//! `cargo bench --bench commands` as root, on a machine with containerd, runc, busybox-static, curl and a C
//! compiler (`tests/run.sh` installs them). Every round runs each program once, in turn, so that a noisy machine
//! is noisy for all; the figures are medians, and the ratios are what to look at.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kata_runtime::node::{Id, Node};

const ROUNDS: usize = 300;
const BUNDLES: usize = 10_000;
const KATA_RUNTIME: &str = env!("CARGO_BIN_EXE_kata-runtime");

fn main() {
    // `cargo test --benches` wants to see that it runs; measuring is for `cargo bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let world = World::start();
    whole_processes(&world);
    a_prefix_among_many();
}

/// A private containerd with a container and a sandbox.
struct World {
    dir: PathBuf,
    container: String,
    sandbox: String,
}

impl World {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("kr-bench-{}", std::process::id()));
        let world = Self {
            container: format!("bench-runc-{}", std::process::id()),
            sandbox: format!("bench-pod-{}", std::process::id()),
            dir,
        };
        let shims = Path::new(KATA_RUNTIME).with_file_name("examples");
        build_example_shim();
        let bin = which("containerd");
        world.script(&[
            "ctd_start",
            &world.dir(),
            bin.parent().map_or("", |p| p.to_str().unwrap()),
            shims.to_str().unwrap(),
        ]);
        let image = world.dir.join("image.tar");
        world.script(&["ctd_image", image.to_str().unwrap()]);
        world.script(&[
            "ctd_ctr",
            &world.dir(),
            "-n",
            "default",
            "images",
            "import",
            image.to_str().unwrap(),
        ]);
        world.script(&[
            "ctd_run",
            &world.dir(),
            "default",
            &world.container,
            "--",
            "sleep",
            "100000",
        ]);
        world.script(&[
            "ctd_run_sandbox",
            &world.dir(),
            "default",
            &world.sandbox,
            "--",
            "sleep",
            "100000",
        ]);
        world
    }

    fn dir(&self) -> String {
        self.dir.display().to_string()
    }

    fn state(&self) -> String {
        self.dir.join("state").display().to_string()
    }

    fn bundle_file(&self, name: &str) -> Option<String> {
        let path = self
            .dir
            .join("state/io.containerd.runtime.v2.task/default")
            .join(&self.container)
            .join(name);
        fs::read_to_string(path).ok()
    }

    /// Runs a function of the tests' shell library.
    fn script(&self, arguments: &[&str]) {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lib/containerd.sh");
        let status = Command::new("bash")
            .arg(library)
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?} failed");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.script(&["ctd_clean", &self.dir()]);
    }
}

fn build_example_shim() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--examples", "--quiet"])
        .status()
        .unwrap();
    assert!(status.success(), "the example shim does not build");
}

fn which(program: &str) -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|directory| directory.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not installed: tests/run.sh installs what is needed"))
}

fn whole_processes(world: &World) {
    let raw = world.dir.join("raw_stats");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/raw_stats.c");
    assert!(
        Command::new("cc")
            .arg("-O2")
            .arg("-o")
            .arg(&raw)
            .arg(source)
            .status()
            .unwrap()
            .success()
    );
    let (socket, service) = match world.bundle_file("bootstrap.json") {
        Some(json) => {
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            let service = format!("containerd.task.v{}.Task", json["version"]);
            (json["address"].as_str().unwrap().to_string(), service)
        }
        None => (
            world.bundle_file("address").unwrap(),
            "containerd.task.v2.Task".to_string(),
        ),
    };
    let socket = socket.trim().trim_start_matches("unix://").to_string();
    let state = world.state();
    let containerd = world.dir.join("containerd.sock").display().to_string();
    let monitor = format!("/run/vc/sbs/{}/shim-monitor.sock", world.sandbox);

    let mut programs = [
        Program::new("an empty process (true)", &["true"]),
        Program::new(
            "State and Stats raw, in C",
            &[raw.to_str().unwrap(), &socket, &service, &world.container],
        ),
        Program::new(
            "kata-runtime events --stats",
            &[
                KATA_RUNTIME,
                "--state",
                &state,
                "events",
                "--stats",
                &world.container,
            ],
        ),
        Program::new(
            "ctr task metrics",
            &[
                "ctr",
                "-a",
                &containerd,
                "task",
                "metrics",
                "--format",
                "json",
                &world.container,
            ],
        ),
        Program::new(
            "curl --unix-socket",
            &["curl", "-s", "--unix-socket", &monitor, "http://shim/metrics"],
        ),
        Program::new(
            "kata-runtime metrics",
            &[KATA_RUNTIME, "--state", &state, "metrics", &world.sandbox],
        ),
    ];
    for round in 0..ROUNDS + 5 {
        for program in &mut programs {
            let run = program.run();
            if round >= 5 {
                program.runs.push(run);
            }
        }
    }
    println!("whole process, medians of {ROUNDS} runs in turn:");
    println!("  {:28} {:>9} {:>9} {:>10}", "", "wall ms", "cpu ms", "peak MiB");
    for program in &programs {
        let (wall, cpu, peak) = (program.wall(), program.cpu(), program.peak_mib());
        println!("  {:28} {wall:9.2} {cpu:9.2} {peak:10.1}", program.name);
    }
    let [_, raw, events, ctr, curl, metrics] = &programs;
    println!(
        "  events / raw C          {:.2}   (at most 1.5)",
        events.wall() / raw.wall()
    );
    println!(
        "  ctr / events            {:.2}   (at least 5)",
        ctr.wall() / events.wall()
    );
    println!(
        "  metrics / curl          {:.2}   (at most 1.5), memory {:.2}",
        metrics.wall() / curl.wall(),
        metrics.peak_mib() / curl.peak_mib()
    );
    stream(world);
    let size = fs::metadata(KATA_RUNTIME).unwrap().len() as f64 / f64::from(1 << 20);
    println!("  the binary              {size:.2} MiB   (at most 6)");
}

/// Memory and threads of a stream that has printed an event, from its own /proc.
fn stream(world: &World) {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(KATA_RUNTIME)
        .args([
            "--state",
            &world.state(),
            "events",
            "--interval",
            "1h",
            "--format",
            "json",
            &world.container,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut String::new())
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .trim()
            .to_string()
    };
    let peak: f64 = field("VmHWM:").trim_end_matches(" kB").parse().unwrap();
    println!(
        "  a stream of events      {:.2} MiB peak (at most 6), threads: {} (1)",
        peak / 1024.0,
        field("Threads:")
    );
}

struct Program {
    name: &'static str,
    arguments: Vec<CString>,
    runs: Vec<Run>,
}

struct Run {
    wall: Duration,
    cpu: Duration,
    peak_kib: i64,
}

impl Program {
    fn new(name: &'static str, arguments: &[&str]) -> Self {
        let program = if arguments[0].contains('/') {
            PathBuf::from(arguments[0])
        } else {
            which(arguments[0])
        };
        let mut arguments: Vec<_> = arguments.iter().map(|a| CString::new(*a).unwrap()).collect();
        arguments[0] = CString::new(program.to_str().unwrap()).unwrap();
        Self {
            name,
            arguments,
            runs: Vec::new(),
        }
    }

    /// Starts the program and waits for its end, its output thrown away.
    fn run(&self) -> Run {
        let mut argv: Vec<_> = self.arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
        argv.push(std::ptr::null_mut());
        // SAFETY: all pointers are to live, NUL-terminated strings and initialised structures.
        unsafe {
            let mut actions = std::mem::zeroed();
            libc::posix_spawn_file_actions_init(&mut actions);
            libc::posix_spawn_file_actions_addopen(&mut actions, 1, c"/dev/null".as_ptr(), libc::O_WRONLY, 0);
            let (mut pid, mut status, mut usage) = (0, 0, std::mem::zeroed::<libc::rusage>());
            let started = Instant::now();
            let spawned = libc::posix_spawn(
                &mut pid,
                argv[0],
                &actions,
                std::ptr::null(),
                argv.as_ptr(),
                environ,
            );
            assert_eq!(spawned, 0, "{} cannot be started", self.name);
            assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
            let wall = started.elapsed();
            libc::posix_spawn_file_actions_destroy(&mut actions);
            assert_eq!(status, 0, "{} failed", self.name);
            let time =
                |t: libc::timeval| Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64);
            Run {
                wall,
                cpu: time(usage.ru_utime) + time(usage.ru_stime),
                peak_kib: usage.ru_maxrss,
            }
        }
    }

    fn wall(&self) -> f64 {
        median(self.runs.iter().map(|r| r.wall.as_secs_f64() * 1e3))
    }

    fn cpu(&self) -> f64 {
        median(self.runs.iter().map(|r| r.cpu.as_secs_f64() * 1e3))
    }

    fn peak_mib(&self) -> f64 {
        median(self.runs.iter().map(|r| r.peak_kib as f64 / 1024.0))
    }
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Finding one container by a beginning of its id, beside a listing of the directory and a reading of its bundle.
fn a_prefix_among_many() {
    let state = std::env::temp_dir().join(format!("kr-bench-bundles-{}", std::process::id()));
    let tasks = state.join("io.containerd.runtime.v2.task/k8s.io");
    let spec = include_str!("../tests/fixtures/kata-3.30-go/bundle-child/config.json");
    for number in 0..BUNDLES {
        let bundle = tasks.join(format!(
            "{:016x}{number:048x}",
            number as u64 * 0x9e37_79b9_7f4a_7c15
        ));
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), spec).unwrap();
        fs::write(bundle.join("address"), "unix:///run/containerd/s/x").unwrap();
    }
    let wanted = fs::read_dir(&tasks)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    let node = Node::new(vec![state.clone()], None);
    let prefix = Id::parse(&wanted[..14]).unwrap();
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let started = Instant::now();
        let bundle = node.find(&prefix).unwrap();
        assert!(bundle.endpoint().unwrap().is_some() && bundle.spec().is_ok());
        ours.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        assert_eq!(list_raw(&tasks), BUNDLES + 2);
        let bundle = tasks.join(&wanted);
        assert!(!fs::read(bundle.join("address")).unwrap().is_empty());
        assert!(!fs::read(bundle.join("config.json")).unwrap().is_empty());
        baseline.push(started.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_dir_all(&state).unwrap();
    let (ours, baseline) = (median(ours.into_iter()), median(baseline.into_iter()));
    println!("one container by prefix among {BUNDLES} bundles, medians of 100:");
    println!("  {ours:.2} ms; listing the directory and reading that bundle {baseline:.2} ms");
    println!("  ratio                   {:.2}   (at most 2)", ours / baseline);
}

/// Reads a directory with the C library, and does nothing with it.
fn list_raw(directory: &Path) -> usize {
    let path = CString::new(directory.to_str().unwrap()).unwrap();
    let mut entries = 0;
    // SAFETY: the path is NUL-terminated, and the stream is open until it is closed here.
    unsafe {
        let stream = libc::opendir(path.as_ptr());
        assert!(!stream.is_null());
        while !libc::readdir(stream).is_null() {
            entries += 1;
        }
        libc::closedir(stream);
    }
    entries
}
