//! `metrics` on sandboxes of the test shim, in the manner of both of Kata's shims.

use std::{collections::BTreeSet, process::Command, time::Duration};

use nix::sys::signal::Signal;

use crate::support::{Task, eventually, for_each_containerd, kata_runtime};

const IDLE: [&str; 2] = ["sleep", "1000"];
const GO: [&str; 0] = [];
const RUST: [&str; 2] = ["--annotation", "io.kata-runtime.test.flavour=rust"];
const RUST_QEMU: [&str; 4] = [
    RUST[0],
    RUST[1],
    "--annotation",
    "io.kata-runtime.test.hypervisor=qemu",
];

fn go_socket(sandbox: &Task) -> String {
    format!("/run/vc/sbs/{}/shim-monitor.sock", sandbox.id)
}

fn rust_socket(sandbox: &Task) -> String {
    format!("/run/kata/{}/shim-monitor.sock", sandbox.id)
}

fn families(page: &str) -> BTreeSet<&str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect()
}

fn by_curl(socket: &str) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--fail",
            "--max-time",
            "10",
            "--unix-socket",
            socket,
            "http://shim/metrics",
        ])
        .output()
        .expect("curl starts");
    assert!(output.status.success(), "curl on {socket}");
    String::from_utf8(output.stdout).expect("the page is UTF-8")
}

#[test]
fn a_sandbox_answers_with_the_families_that_curl_gets() {
    for_each_containerd(|containerd| {
        let go = containerd.run_sandbox(&GO);
        let rust = containerd.run_sandbox(&RUST);
        for (sandbox, socket, least) in [(&go, go_socket(&go), 35), (&rust, rust_socket(&rust), 15)] {
            let ran = containerd.ask(&["metrics", &sandbox.id]);
            let page = ran.answer();
            assert!(page.starts_with("# HELP "), "{page}");
            assert!(
                page.ends_with('\n') && !page.ends_with("\n\n"),
                "not a byte more than was sent"
            );
            let found = families(page);
            assert!(found.len() >= least, "{found:?}");
            assert!(found.contains("kata_guest_meminfo gauge") && found.contains("kata_shim_threads gauge"));
            assert_eq!(found, families(&by_curl(&socket)));
        }
    });
}

#[test]
fn a_prefix_names_a_sandbox_too() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&GO);
        let prefix = &sandbox.id[..sandbox.id.len() - 1];
        assert!(families(containerd.ask(&["metrics", prefix]).answer()).len() > 30);
    });
}

#[test]
fn a_container_in_a_sandbox_leads_to_it() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&GO);
        let child = containerd.run_child(&sandbox, &[], &IDLE);
        let ran = containerd.ask(&["metrics", &child.id]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "one line: {}", ran.stderr);
        assert!(
            ran.stderr.contains(&child.id) && ran.stderr.contains(&sandbox.id),
            "{}",
            ran.stderr
        );
        assert_eq!(
            families(&ran.stdout),
            families(containerd.ask(&["metrics", &sandbox.id]).answer())
        );
    });
}

#[test]
fn a_sandbox_that_containerd_does_not_know_still_answers() {
    for_each_containerd(|containerd| {
        let elsewhere = tempfile::tempdir().unwrap();
        let state = elsewhere.path().to_str().unwrap();
        for flavour in [&GO[..], &RUST] {
            let sandbox = containerd.run_sandbox(flavour);
            let ran = kata_runtime(&["--state", state, "metrics", &sandbox.id]);
            assert!(families(ran.answer()).len() >= 15);
        }
    });
}

#[test]
fn what_is_no_sandbox_has_no_metrics() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let ran = containerd.ask(&["metrics", &task.id]);
        assert!(ran.complaint().contains(&task.id), "{}", ran.stderr);
        containerd.ask(&["metrics", "nobody"]).complaint();
    });
}

#[test]
fn a_stopped_sandbox_is_not_running_even_if_its_shim_still_answers() {
    for_each_containerd(|containerd| {
        let go = containerd.run_sandbox(&GO);
        go.stop();
        let ran = containerd.ask(&["metrics", &go.id]);
        let complaint = ran.complaint();
        let gone = format!(
            "Get \"http://shim/metrics\": dial unix {}: connect: no such file or directory",
            go_socket(&go)
        );
        assert!(
            complaint.contains(&gone) || complaint.contains("stopped"),
            "{complaint}"
        );

        let rust = containerd.run_sandbox(&RUST);
        rust.stop();
        let alive = by_curl(&rust_socket(&rust));
        assert!(
            alive.contains("kata_shim_threads") && !alive.contains("kata_guest"),
            "{alive}"
        );
        let ran = containerd.ask(&["metrics", &rust.id]);
        assert!(ran.complaint().contains("stopped"), "{}", ran.stderr);
    });
}

/// containerd is ended first: it would clear away what the dead shim leaves behind.
#[test]
fn a_sandbox_whose_shim_was_killed_refuses_the_connection() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&GO);
        let shim = sandbox.shim();
        containerd.kill();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim.cast_signed()), Signal::SIGKILL).unwrap();
        eventually("the shim is gone", || !sandbox.has_shim());
        let ran = containerd.ask(&["metrics", &sandbox.id]);
        let expected = format!(
            "Get \"http://shim/metrics\": dial unix {}: connect: connection refused",
            go_socket(&sandbox)
        );
        assert!(ran.complaint().contains(&expected), "{}", ran.stderr);
    });
}

#[test]
fn a_hung_shim_is_not_waited_for_without_end() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&GO);
        sandbox.signal_shim(Signal::SIGSTOP);
        let ran = containerd.ask(&["--timeout", "1s", "metrics", &sandbox.id]);
        sandbox.signal_shim(Signal::SIGCONT);
        assert!(ran.complaint().contains(&sandbox.id), "{}", ran.stderr);
        assert!(
            (Duration::from_secs(1)..Duration::from_secs(3)).contains(&ran.took),
            "{:?}",
            ran.took
        );
        containerd.ask(&["metrics", &sandbox.id]).answer();
    });
}

#[test]
fn a_sandbox_that_would_die_of_the_question_is_not_asked() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&RUST_QEMU);
        let ran = containerd.ask(&["metrics", &sandbox.id]);
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.stderr.contains("--force") && ran.stderr.contains("qemu"),
            "{}",
            ran.stderr
        );
        assert!(!ran.stdout.contains("kata_guest_"), "it has no agent");
        assert_eq!(sandbox.status(), "RUNNING");
        containerd.ask(&["events", "--stats", &sandbox.id]).answer();

        // It was right to be careful.
        let shim = sandbox.shim();
        containerd.ask(&["metrics", "--force", &sandbox.id]).complaint();
        eventually("the shim has died of it", || {
            !std::path::Path::new(&format!("/proc/{shim}/exe")).exists()
        });
    });
}
