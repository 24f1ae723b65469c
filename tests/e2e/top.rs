//! `top` and `metrics --summary` on real containers; what they show is compared with what the kernel counts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use test_needs::needs;

use crate::support::tmux::{Tmux, cells};
use crate::support::{Containerd, Task, for_each_containerd};

const NAMES: [&str; 4] = [
    "--annotation",
    "io.kubernetes.cri.sandbox-namespace=shop",
    "--annotation",
    "io.kubernetes.cri.sandbox-name=web",
];

/// What keeps a processor busy for as long as it lives.
const BUSY: [&str; 3] = ["sh", "-c", "while :; do :; done"];

pub fn top(containerd: &Containerd, arguments: &str) -> Tmux {
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    let state = containerd.state();
    Tmux::start(
        (160, 40),
        &format!("{program} --state {state} top --interval 1s {arguments}"),
    )
}

fn number(cells: &[String], place: usize) -> Option<f64> {
    cells.get(place)?.parse().ok()
}

/// The per cent of a processor that the kernel says a container used while something was done.
fn burned(task: &Task, meanwhile: impl FnOnce()) -> f64 {
    let (begin, before) = (Instant::now(), task.cpu_time());
    meanwhile();
    let used = task.cpu_time() - before;
    used as f64 / begin.elapsed().as_nanos() as f64 * 100.0
}

/// The enforcement periods of a container's quota, and in how many of them it was held back.
fn periods(task: &Task) -> (f64, f64) {
    let number = |key: &str| task.cgroup_key("cpu", "cpu.stat", key) as f64;
    (number("nr_periods"), number("nr_throttled"))
}

#[test]
fn a_loop_under_a_quota_of_half_a_processor_burns_half_of_one() {
    needs!("tmux");
    for_each_containerd(|containerd| {
        let half = ["--cpu-quota", "50000", "--cpu-period", "100000"];
        let task = containerd.run_container(&half, &BUSY);
        let tmux = top(containerd, "");
        tmux.wait_for("a rate", |screen| number(&cells(screen, &task.id), 0).is_some());
        let (mut seen, mut held_back) = (Vec::new(), Vec::new());
        let before = periods(&task);
        let kernel = burned(&task, || {
            for _ in 0..8 {
                std::thread::sleep(Duration::from_secs(1));
                let cells = cells(&tmux.screen(), &task.id);
                seen.extend(number(&cells, 0));
                held_back.extend(number(&cells, 8));
            }
        });
        let after = periods(&task);
        assert!(seen.len() >= 7 && held_back.len() >= 7, "{seen:?} {held_back:?}");
        let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
        let average = mean(&seen);
        assert!(
            (average - kernel).abs() < 6.0,
            "shown {average:.1} ({seen:?}), burned {kernel:.1}"
        );
        // The kernel lets it have a period's quota more or less in a second. It gets less on a busy machine.
        assert!(seen.iter().all(|cpu| *cpu < 58.0), "{seen:?}");
        let share = (after.1 - before.1) / (after.0 - before.0) * 100.0;
        assert!(
            (mean(&held_back) - share).abs() < 20.0,
            "shown {held_back:?}, held back {share:.0}"
        );
    });
}

#[test]
fn memory_and_kills_for_want_of_it() {
    needs!("tmux");
    for_each_containerd(|containerd| {
        // The shell stays; each dd asks for more than there is, and is killed.
        let command = [
            "sh",
            "-c",
            "while :; do dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1; done",
        ];
        let task = containerd.run_container(&["--memory-limit", "33554432"], &command);
        let tmux = top(containerd, "");
        let screen = tmux.wait_for("a kill", |screen| {
            number(&cells(screen, &task.id), 9).is_some_and(|kills| kills > 0.0)
        });
        assert!(
            number(&cells(&screen, &task.id), 9) <= Some(task.oom_kills() as f64),
            "no more than the kernel counts"
        );
        // Of 160 columns the bar has some, and it is one word.
        let bar = cells(&screen, &task.id)[2].clone();
        assert!(
            bar.chars().all(|sign| "█░".contains(sign)) && bar.chars().count() >= 8,
            "{bar}"
        );
    });
}

#[test]
fn a_pod_with_its_processes_and_a_hung_shim() {
    needs!("tmux");
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&NAMES);
        let options = [
            &NAMES[..],
            &["--annotation", "io.kubernetes.cri.container-name=app"],
        ]
        .concat();
        let app = containerd.run_child(&sandbox, &options, &["sleep", "1000"]);
        let other = containerd.run_container(&[], &["sleep", "1000"]);
        let tmux = top(containerd, "--timeout 1s");
        tmux.wait_for("the pod", |screen| {
            screen.iter().any(|line| line.starts_with("▾ shop/web"))
                && screen.iter().any(|line| line.starts_with("└ app"))
        });
        tmux.keys(&["a", "End"]);
        // The names in their order: the plain container's id, then the pod, whose container is the last line.
        let pids = (
            format!("pid {}", sandbox.pid()),
            format!("pid {}", sandbox.shim()),
        );
        tmux.wait_for("the sandbox's processes", |screen| {
            let has = |label: &str, pid: &str| {
                screen
                    .iter()
                    .any(|line| line.starts_with(label) && line.contains(pid))
            };
            has("VMM", &pids.0) && has("shim", &pids.1)
        });

        sandbox.signal_shim(Signal::SIGSTOP);
        tmux.wait_for("HUNG", |screen| {
            cells(screen, "└ app").first().is_some_and(|word| word == "HUNG:")
        });
        let screen = tmux.wait_for("the rest", |screen| {
            number(&cells(screen, &other.id), 0).is_some()
        });
        // What its processes use is still there: nobody needs to be asked for it.
        assert!(
            screen
                .iter()
                .any(|line| line.starts_with("VMM") && line.contains("iB with guest")),
            "{screen:#?}"
        );
        sandbox.signal_shim(Signal::SIGCONT);
        tmux.wait_for("its recovery", |screen| {
            number(&cells(screen, "└ app"), 0).is_some()
        });

        app.stop();
        tmux.wait_for("the end of the container", |screen| {
            cells(screen, "└ app")
                .first()
                .is_some_and(|word| word == "stopped,")
        });
    });
}

#[test]
fn the_summary_of_a_sandbox_agrees_with_the_kernel() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&NAMES);
        let app = containerd.run_child(&sandbox, &NAMES, &BUSY);
        let arguments = [
            "metrics",
            "--summary",
            "--format",
            "json",
            "--interval",
            "3s",
            &sandbox.id,
        ];
        let mut answer = serde_json::Value::Null;
        let kernel = burned(&app, || answer = containerd.ask(&arguments).json());
        let find = |list: &str, name: &str| {
            let entries = answer[list].as_array().cloned().unwrap_or_default();
            entries
                .into_iter()
                .find(|entry| entry["name"] == name)
                .unwrap_or_default()
        };
        assert_eq!(answer["pod"], "shop/web");
        let (vmm, shim) = (find("host", "VMM"), find("host", "shim"));
        assert_eq!(
            vmm["source"],
            format!("/proc/{0}/stat, /proc/{0}/status", sandbox.pid())
        );
        assert_eq!(
            shim["source"],
            format!("/proc/{0}/stat, /proc/{0}/status", sandbox.shim())
        );
        let resident = std::fs::read_to_string(format!("/proc/{}/status", sandbox.pid())).expect("it runs");
        let resident = resident
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("it has memory");
        let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        assert_eq!(vmm["memory_bytes"], kilobytes * 1024, "it sleeps");
        let shown = find("containers", &app.id)["cpu_percent"]
            .as_f64()
            .unwrap_or_default();
        // The kernel's is of a longer time, with the program's start in it.
        assert!(
            (shown - kernel).abs() < 15.0,
            "shown {shown:.1}, burned {kernel:.1}"
        );
        // Here the containers do not run within the process that stands for the VMM, and it says so.
        let missing = answer["missing"].to_string();
        assert!(
            missing.contains("the containers report more processor time"),
            "{missing}"
        );
        assert_eq!(find("guest", "guest")["memory_of_bytes"].as_u64(), total_memory());
    });
}

/// The machine's memory, which is the guest's with the test shim.
fn total_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes: u64 = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .ok()?;
    Some(kilobytes * 1024)
}
