//! What a scrape costs: wall time, processor time and memory of `monitor` on nodes of 1, 100 and 1,000 sandboxes,
//! plain and with gzip, and with one sandbox in ten hung; beside a program that copies the same bytes through the same
//! sockets and does nothing else.
//!
//! `cargo bench --bench monitor`, as root (the sandboxes' sockets are put where Kata has them, below /run/vc/sbs, and
//! taken away again). Another number of sandboxes: `cargo bench --bench monitor -- 5000`. With QEMU, containerd and runc installed,
//! also what virtual machines and real containers of runc's cost. The figures are medians;
//! scrapes of both programs take turns, so that a noisy machine is noisy for both.

#![allow(clippy::restriction)] // A benchmark may panic.

mod measure;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use measure::KATA_RUNTIME;

/// How many real containers there are, unless `-- runc=1000` says otherwise: each takes containerd and runc a good part of a
/// second to start, and its shim 10 MB.
const RUNC: usize = 200;

/// Where replay puts the sockets of a node without containerd.
const SOCKETS: &str = "/run/vc/sbs";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "copy") {
        copy(&arguments[1..]).expect("the copying program");
        return;
    }
    // `cargo test --benches` wants to see that it runs; measuring is for `cargo bench`.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let mut sizes: Vec<usize> = arguments
        .iter()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    if sizes.is_empty() {
        sizes = vec![1, 100, 1000];
    }
    let replay = measure::build("replay", "replay");
    println!(
        "\nMonitors alone, as kata-monitor sees a node (its figures on two cores, Kata 3.30: 100 sandboxes 179 ms"
    );
    println!("wall, 274 ms CPU, 123 MiB; 1,000 sandboxes 1,924 ms, 2,874 ms, 857 MiB)\n");
    heading();
    for &size in &sizes {
        monitors_alone(&replay, size);
    }
    if let Some(size) = sizes.last() {
        println!(
            "\nThe same, and each sandbox has noted a virtual machine: QEMU's, with four virtual processors\n"
        );
        heading();
        machines(&replay, *size);
    }
    println!("\nWith containerd's bundles, and State and Stats of a sandbox and a container in each\n");
    heading();
    for &size in &sizes {
        whole_node(&replay, size);
    }
    if measure::is_installed("containerd") && measure::is_installed("runc") {
        println!("\nReal containers of runc's, without a pod, under a containerd of their own\n");
        heading();
        let given = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix("runc="));
        containers(given.map_or(RUNC, |count| count.parse().expect("a number of containers")));
    }
    if let Some(size) = sizes.iter().find(|size| **size >= 10) {
        println!("\nOne sandbox in ten hung; an answer is waited for 3 s\n");
        heading();
        hung(&replay, *size);
    }
}

fn heading() {
    println!(
        "{:>9}  {:<22} {:>9} {:>9} {:>9} {:>10} {:>9} {:>7}",
        "sandboxes", "", "wall ms", "CPU ms", "peak MB", "page MB", "sent MB", "of copy"
    );
}

/// One line of the table. `beside` is the processor time of the copying program.
fn line(size: usize, what: &str, figures: &Figures, page: u64, beside: Option<Duration>) {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let ratio = beside.map(|copy| format!("{:.1}", figures.cpu.as_secs_f64() / copy.as_secs_f64()));
    println!(
        "{size:>9}  {what:<22} {:>9.1} {:>9.1} {:>9.1} {:>10.1} {:>9.1} {:>7}",
        figures.wall.as_secs_f64() * 1e3,
        figures.cpu.as_secs_f64() * 1e3,
        mb(figures.peak),
        mb(page),
        mb(figures.sent),
        ratio.unwrap_or_default(),
    );
}

fn monitors_alone(replay: &Path, size: usize) {
    let node = Node::start(replay, size, &["--sockets-only"]);
    let monitor = Program::monitor(&node.empty_state());
    let first = monitor.scrape(false);
    let copy = Program::copy(size, first.sent);
    let rounds = rounds(size);
    let (mut plain, mut gzip, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain.push(monitor.scrape(false));
        copied.push(copy.scrape(false));
        gzip.push(monitor.scrape(true));
    }
    let [plain, gzip, copied] = [plain, gzip, copied].map(median);
    line(size, "copying the bytes", &copied, first.sent, None);
    line(size, "monitor", &plain, first.sent, Some(copied.cpu));
    line(size, "monitor, gzip", &gzip, first.sent, Some(copied.cpu));
    println!(
        "{:>9}  {:<22} {:>39.1}",
        "",
        "idle afterwards",
        monitor.resident() as f64 / 1e6
    );
}

fn whole_node(replay: &Path, size: usize) {
    let node = Node::start(replay, size, &[]);
    let monitor = Program::monitor(&node.state());
    let first = monitor.scrape(false);
    let (mut plain, mut gzip) = (Vec::new(), Vec::new());
    for _ in 0..rounds(size) {
        plain.push(monitor.scrape(false));
        gzip.push(monitor.scrape(true));
    }
    line(size, "monitor", &median(plain), first.sent, None);
    line(size, "monitor, gzip", &median(gzip), first.sent, None);
}

/// Every sandbox has noted the same machine, of which there is one.
fn machines(replay: &Path, size: usize) {
    if !measure::is_installed("qemu-system-x86_64") {
        println!("{size:>9}  (qemu-system-x86_64 is not installed)");
        return;
    }
    let node = Node::start(replay, size, &["--sockets-only"]);
    let machine = Machine::start();
    for entry in fs::read_dir(SOCKETS).expect("sandboxes").flatten() {
        // Others' sandboxes may be there.
        if entry.file_name().as_encoded_bytes().starts_with(b"5eed") {
            fs::write(entry.path().join("persist.json"), machine.notes()).expect("notes");
        }
    }
    let state = node.empty_state();
    let without = Program::monitor_with(&state, &["--families=-kata_sandbox_"]);
    let (with, lean) = (
        Program::monitor(&state),
        Program::monitor_with(&state, &["--profile", "lean"]),
    );
    let programs = [&without, &with, &lean];
    let pages = programs.map(|program| program.scrape(false).sent);
    let mut runs = [const { Vec::new() }; 3];
    for _ in 0..rounds(size) {
        for (program, runs) in programs.iter().zip(&mut runs) {
            runs.push(program.scrape(false));
        }
    }
    let names = ["without kata_sandbox_*", "with", "lean"];
    for ((name, runs), page) in names.into_iter().zip(runs).zip(pages) {
        line(size, name, &median(runs), page, None);
    }
}

/// A virtual machine that does nothing, and cgroups as a shim makes them.
struct Machine {
    qemu: Child,
    cgroups: Vec<PathBuf>,
    name: String,
}

impl Machine {
    fn start() -> Self {
        let qemu = Command::new("qemu-system-x86_64")
            .args([
                "-name",
                "bench,debug-threads=on",
                "-machine",
                "pc,accel=tcg,memory-backend=m",
            ])
            .args([
                "-object",
                "memory-backend-memfd,id=m,size=128M,share=on,prealloc=on",
            ])
            .args(["-object", "iothread,id=io0", "-m", "128", "-smp", "4"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .spawn()
            .expect("QEMU starts");
        let name = format!("kr-bench-{}", std::process::id());
        let roots =
            ["memory", "cpu", "cpuacct", ""].map(|controller| Path::new("/sys/fs/cgroup").join(controller));
        let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let wanted = roots.iter().filter(|root| root.ends_with("cgroup") == is_v2);
        let cgroups: Vec<_> = wanted.map(|root| root.join(&name)).collect();
        for cgroup in &cgroups {
            // cpu and cpuacct may be one.
            let _ = fs::create_dir(cgroup);
            fs::write(cgroup.join("cgroup.procs"), qemu.id().to_string()).expect("QEMU in its cgroup");
        }
        // Its firmware is done by then.
        std::thread::sleep(Duration::from_secs(3));
        Self { qemu, cgroups, name }
    }

    /// What Kata's Go shim notes of it.
    fn notes(&self) -> String {
        format!(
            "{{\"HypervisorState\":{{\"Type\":\"qemu\",\"Pid\":{}}},\"SandboxCgroupPath\":\"/{}\",\"Config\":{{\"HypervisorConfig\":{{\"MemorySize\":128}}}}}}",
            self.qemu.id(),
            self.name
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.qemu);
        for cgroup in &self.cgroups {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// Real containers of runc's: what the kernel tells of each is read as well.
fn containers(count: usize) {
    let containerd = measure::Containerd::start(None);
    containerd.run_many(count, |_| vec!["sleep", "100000"]);
    let monitor = Program::monitor(Path::new(&containerd.state()));
    let first = monitor.scrape(false);
    let runs: Vec<_> = (0..21).map(|_| monitor.scrape(false)).collect();
    line(count, "monitor", &median(runs), first.sent, None);
}

fn hung(replay: &Path, size: usize) {
    let node = Node::start(replay, size, &["--hung-every", "10"]);
    let monitor = Program::monitor(&node.state());
    let first = monitor.scrape(false);
    line(size, "first scrape", &first, first.sent, None);
    let again: Vec<_> = (0..3).map(|_| monitor.scrape(false)).collect();
    line(size, "those after it", &median(again), first.sent, None);
}

fn rounds(size: usize) -> usize {
    (2000 / size).clamp(7, 101)
}

/// What one scrape cost.
#[derive(Clone, Copy)]
struct Figures {
    wall: Duration,
    cpu: Duration,
    /// The most memory that was resident, in bytes.
    peak: u64,
    sent: u64,
}

fn median(mut all: Vec<Figures>) -> Figures {
    let mut middle = |key: fn(&Figures) -> u128| {
        all.sort_by_key(key);
        all[all.len() / 2]
    };
    Figures {
        wall: middle(|one| one.wall.as_nanos()).wall,
        cpu: middle(|one| one.cpu.as_nanos()).cpu,
        peak: middle(|one| u128::from(one.peak)).peak,
        sent: middle(|one| u128::from(one.sent)).sent,
    }
}

/// A node of recorded sandboxes.
struct Node {
    dir: PathBuf,
    replay: Child,
}

impl Node {
    fn start(replay: &Path, size: usize, options: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("kr-bench-monitor-{}", std::process::id()));
        let mut replay = Command::new(replay)
            .arg(size.to_string())
            .arg("--dir")
            .arg(&dir)
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("replay starts");
        let mut ready = String::new();
        let stdout = replay.stdout.take().expect("a pipe");
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("replay says that it is ready");
        assert_eq!(ready, "ready\n");
        Self { dir, replay }
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A state directory in which there is nothing.
    fn empty_state(&self) -> PathBuf {
        self.dir.join("empty")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.replay);
    }
}

fn end(child: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let _ = child.wait();
}

/// A program that serves a page.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn monitor(state: &Path) -> Self {
        Self::monitor_with(state, &[])
    }

    fn monitor_with(state: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(KATA_RUNTIME)
            .arg("--state")
            .arg(state)
            .args(["monitor", "--listen-address", "127.0.0.1:0"])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .expect("monitor starts");
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        stderr
            .read_line(&mut line)
            .expect("monitor says where it listens");
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .and_then(|rest| rest.strip_suffix("/metrics"))
            .expect("an address")
            .to_string();
        Self { child, address }
    }

    fn copy(size: usize, page: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("our path"))
            .args(["copy", &size.to_string(), &page.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the copying program starts");
        let mut address = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut address).expect("it says where it listens");
        Self {
            child,
            address: address.trim().to_string(),
        }
    }

    fn scrape(&self, gzip: bool) -> Figures {
        let pid = self.child.id();
        // The peak is counted anew from here.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("clear_refs");
        let before = processor_time(pid);
        let started = Instant::now();
        let mut stream = TcpStream::connect(&self.address).expect("connect");
        let encoding = if gzip { "gzip" } else { "identity" };
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: bench\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("ask");
        let mut buffer = vec![0; 1 << 20];
        let mut sent = 0;
        loop {
            match stream.read(&mut buffer).expect("an answer") {
                0 => break,
                n => {
                    assert!(
                        sent > 0 || buffer.starts_with(b"HTTP/1.1 200 "),
                        "an answer of another kind"
                    );
                    sent += n as u64;
                }
            }
        }
        let wall = started.elapsed();
        // What is left to do when the client has all: giving memory back.
        std::thread::sleep(Duration::from_millis(20));
        Figures {
            wall,
            cpu: processor_time(pid).saturating_sub(before),
            peak: status(pid, "VmHWM:"),
            sent,
        }
    }

    fn resident(&self) -> u64 {
        status(self.child.id(), "VmRSS:")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What all threads of a process have run.
fn processor_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let run = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(run.sum())
}

/// A line of a process's status that has kilobytes in it.
fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .expect("the line");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

/// The other program: for each request it reads every monitor's answer, and writes as many bytes as the page has.
fn copy(arguments: &[String]) -> io::Result<()> {
    let page: usize = arguments[1].parse().expect("a length");
    let mut monitors: Vec<PathBuf> = fs::read_dir(SOCKETS)?
        .filter_map(|entry| Some(entry.ok()?.path().join("shim-monitor.sock")))
        .filter(|path| path.exists())
        .collect();
    monitors.sort();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut buffer = vec![0; 64 << 10];
    for client in listener.incoming() {
        let mut client = client?;
        let _ = client.read(&mut buffer)?;
        for monitor in &monitors {
            // Others' sandboxes may be there, and may have gone.
            let Ok(mut stream) = UnixStream::connect(monitor) else {
                continue;
            };
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: shim\r\n\r\n")?;
            loop {
                let n = stream.read(&mut buffer)?;
                if n == 0 || buffer[..n].ends_with(b"\r\n0\r\n\r\n") {
                    break;
                }
            }
        }
        client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        let mut left = page;
        while left > 0 {
            let n = left.min(buffer.len());
            client.write_all(&buffer[..n])?;
            left -= n;
        }
    }
    Ok(())
}
