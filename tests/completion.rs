//! Completion, in a real bash on a terminal, and by the lines that the shells' scripts read.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mock::{Node, finish, healthy};

const KATA_RUNTIME: &str = env!("CARGO_BIN_EXE_kata-runtime");

fn pod(node: &Node, id: &str, namespace: &str, name: &str) {
    let (_, socket) = node.bundle(
        "k8s.io",
        id,
        &[
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-namespace", namespace),
            ("io.kubernetes.cri.sandbox-name", name),
        ],
    );
    mock::serve(&socket, healthy);
}

fn offered(node: &Node, words: &[&str]) -> Vec<String> {
    let state = node.state_dir().to_str().unwrap();
    let ran = node.run(&[&["__complete", "--", "--state", state], words].concat());
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let word = |line: &str| line.split('\t').next().unwrap().to_string();
    ran.stdout.lines().map(word).collect()
}

#[test]
fn what_is_on_the_node_is_offered() {
    let node = Node::new();
    pod(&node, "5a", "shop", "web-0");
    pod(&node, "5b", "shop", "db");
    assert_eq!(offered(&node, &["events", ""]), ["shop/db", "shop/web-0"]);
    assert_eq!(offered(&node, &["metrics", "shop/w"]), ["shop/web-0"]);
    assert_eq!(
        offered(&node, &["events", "--stats", "shop/db", "5"]),
        ["5a", "5b"]
    );
    assert_eq!(offered(&node, &["-n", "default", "events", ""]), [""; 0]);
    assert_eq!(offered(&node, &["list", "--pod", ""]), ["db", "web-0"]);
    assert_eq!(offered(&node, &["list", "--format=w"]), ["--format=wide"]);
}

#[test]
fn it_never_waits_and_never_complains() {
    let node = Node::new();
    pod(&node, "5a", "shop", "web\x1b[2J");
    let fifo = node.state_dir().join("io.containerd.runtime.v2.task/k8s.io/5f");
    fs::create_dir(&fifo).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(fifo.join("config.json"))
            .status()
            .unwrap()
            .success()
    );
    assert!(
        Command::new("mkfifo")
            .arg(fifo.join("address"))
            .status()
            .unwrap()
            .success()
    );
    // A name that no shell may see, and a bundle that cannot be read: their ids are left.
    assert_eq!(offered(&node, &["events", ""]), ["5a", "5f"]);
    for words in [
        &["__complete"][..],
        &["__complete", "--"],
        &["__complete", "--", ""],
        &["__complete", "--", "--state", "/no/such/dir", "events", ""],
        &["__complete", "--", "-n", "../x", "events", "a"],
        &["__complete", "--", "no-such-command", ""],
        &["__complete", "--", "--", "--", "\x1b"],
    ] {
        let mut command = Command::new(KATA_RUNTIME);
        command.args(words).env("CONTAINERD_NAMESPACE", "../..");
        let ran = finish(command);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{words:?}");
        assert!(!ran.stdout.contains('\x1b') && ran.took < Duration::from_secs(2));
    }
}

#[test]
fn every_shell_has_its_script() {
    for (shell, line) in [
        ("bash", "complete -o nosort -F _kata_runtime kata-runtime"),
        ("zsh", "#compdef kata-runtime"),
        ("fish", "complete -c kata-runtime"),
    ] {
        let ran = Node::new().run(&["completion", shell]);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
        assert!(ran.stdout.contains(line), "{shell}");
    }
    assert_eq!(Node::new().run(&["completion", "cmd"]).status, Some(2));
}

/// Types into a bash on a terminal of its own, as a person does.
fn bash(typed: &str) -> String {
    let directory = Path::new(KATA_RUNTIME).parent().unwrap().display();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    let mut terminal = Command::new("script")
        .args(["-qec", "bash --noprofile --norc -i", "/dev/null"])
        .env("PATH", path)
        .env("TERM", "dumb")
        .env_remove("CONTAINERD_NAMESPACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    // Keys that are typed before bash reads them mean other things to the terminal itself (Ctrl-U would take the
    // line away): the prompt is there once it does.
    keys.write_all(b"source <(kata-runtime completion bash); bind 'set bell-style none'; PS1='rea''dy> '\n")
        .unwrap();
    let mut before = Vec::new();
    while !before.ends_with(b"ready> ") {
        let mut byte = [0];
        screen.read_exact(&mut byte).expect("bash has ended");
        before.extend(byte);
    }
    let mut shown = String::new();
    keys.write_all(typed.as_bytes()).unwrap();
    keys.write_all(b"\nexit\n").unwrap();
    screen.read_to_string(&mut shown).unwrap();
    terminal.wait().unwrap();
    shown
}

#[test]
fn a_tab_in_bash_completes_a_command_an_option_its_value_and_a_name() {
    let node = Node::new();
    pod(&node, "5a", "shop", "web-0");
    pod(&node, "5b", "shop", "db");
    let state = node.state_dir().display();
    let shown = bash(&format!(
        "kata-runtime --state {state} ev\t--st\ts --format=js\tshop/w\t"
    ));
    // The command was run as it was completed, and answered.
    assert!(shown.contains(r#""id":"5a""#), "{shown}");
    assert!(!shown.contains("error:"), "{shown}");
}

#[test]
fn two_tabs_in_bash_list_what_fits_and_errors_stay_out_of_the_shell() {
    let node = Node::new();
    pod(&node, "5a", "shop", "web-0");
    pod(&node, "5b", "shop", "db");
    let state = node.state_dir().display();
    let shown = bash(&format!("kata-runtime --state {state} events shop/\t\t\x15"));
    assert!(
        shown.contains("shop/db") && shown.contains("shop/web-0"),
        "{shown}"
    );
    let shown = bash("kata-runtime --state /no/such/dir events \t\t\x15");
    let lines: Vec<_> = shown
        .lines()
        .filter(|line| line.contains("containerd state") || line.contains("rror"))
        .collect();
    assert!(lines.is_empty(), "{shown}");
}
