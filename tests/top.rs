//! `top` in a real terminal: a tmux of its own, keys sent, panes captured. The shims are mocks: hung ones cannot be
//! had on demand. `tests/e2e/top.rs` does it with real containers.

#![allow(clippy::restriction)] // A test may panic.
#![cfg(feature = "top")]

mod mock;
#[allow(dead_code)]
#[path = "../src/commands/top/screen.rs"]
mod screen;
#[path = "support/tmux.rs"]
mod tmux;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mock::{Call, Node, Reply, V1, running, stats};
use protobuf::Message;
use test_needs::needs;
use tmux::{Tmux, cells};

const POD: &[(&str, &str)] = &[
    ("io.kubernetes.cri.container-type", "sandbox"),
    ("io.kubernetes.cri.sandbox-namespace", "shop"),
    ("io.kubernetes.cri.sandbox-name", "web-7d4b9"),
];
const MEMBER: &[(&str, &str)] = &[
    ("io.kubernetes.cri.container-type", "container"),
    ("io.kubernetes.cri.sandbox-id", "pod"),
    ("io.kubernetes.cri.container-name", "nginx"),
];

/// Statistics of a task that has used so much processor time and holds so much memory, limited to 64 MiB.
fn using(cpu: Duration, memory: u64) -> Reply {
    let mut metrics = containerd_shim_protos::cgroups::metrics::Metrics::new();
    let usage = metrics.cpu.mut_or_insert_default().usage.mut_or_insert_default();
    usage.total = cpu.as_nanos() as u64;
    usage.user = usage.total;
    let usage = metrics
        .memory
        .mut_or_insert_default()
        .usage
        .mut_or_insert_default();
    usage.usage = memory;
    usage.limit = 64 << 20;
    metrics.pids.mut_or_insert_default().current = 7;
    stats(V1, &metrics.write_to_bytes().unwrap())
}

/// A shim whose task keeps `share` per cent of a processor busy, by its own clock.
fn busy(share: u64, memory: u64) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let start = Instant::now();
    move |call| match call.method.as_str() {
        "State" => running(0),
        _ => using(
            Duration::from_secs(1) + start.elapsed() * share as u32 / 100,
            memory,
        ),
    }
}

/// A pod of two tasks behind one shim, and two plain containers.
fn node() -> Node {
    let node = Node::new();
    let (_, socket) = node.bundle("k8s.io", "pod", POD);
    let (bundle, _) = node.bundle("k8s.io", "app", MEMBER);
    std::fs::write(bundle.join("address"), format!("unix://{}", socket.display())).unwrap();
    mock::serve(&socket, busy(20, 8 << 20));
    node.task("idle", busy(0, 16 << 20));
    node.task("busy", busy(90, 60 << 20));
    node
}

fn top(node: &Node, size: (u16, u16), arguments: &str) -> Tmux {
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    let state = node.state_dir().display();
    Tmux::start(
        size,
        &format!("{program} --state {state} top --interval 300ms {arguments}"),
    )
}

fn place(screen: &[String], name: &str) -> usize {
    screen
        .iter()
        .position(|line| line.contains(name))
        .unwrap_or(usize::MAX)
}

fn near(text: &str, expected: f64) -> bool {
    text.parse::<f64>()
        .is_ok_and(|number| (number - expected).abs() < 8.0)
}

#[test]
fn the_node_at_eighty_by_twenty_four() {
    needs!("tmux");
    let node = node();
    let tmux = top(&node, (80, 24), "");
    let screen = tmux.wait_for("rates", |screen| {
        cells(screen, "busy").first().is_some_and(|cpu| near(cpu, 90.0))
            && cells(screen, "nginx").first().is_some_and(|cpu| near(cpu, 20.0))
    });
    assert!(
        screen[0].starts_with("kata-runtime top  1 pod, 3 containers, CPU "),
        "{}",
        screen[0]
    );
    assert!(screen[0].ends_with("every 300ms"));
    assert_eq!(screen.len(), 24);
    // The largest first, the pod with its container under it.
    assert!(
        place(&screen, "busy") < place(&screen, "shop/web-7d4b9"),
        "{screen:#?}"
    );
    assert_eq!(place(&screen, "└ nginx"), place(&screen, "shop/web-7d4b9") + 1);
    assert!(place(&screen, "shop/web-7d4b9") < place(&screen, "idle"));
    // 60 MiB of 64 are 94 %: all of eight cells; 16 MiB are two.
    assert_eq!(
        cells(&screen, "busy")[1..],
        ["60M", "████████", "-", "-", "-", "-", "7", "-", "-"]
    );
    assert_eq!(cells(&screen, "idle")[1..3], ["16M", "██░░░░░░"]);
    // The pane is about the first line, as nothing was chosen.
    assert!(screen[14].starts_with("── busy ─"), "{}", screen[14]);
    assert!(
        screen
            .iter()
            .any(|line| line.starts_with("memory    60MiB working set"))
    );
}

#[test]
fn keys_sort_fold_filter_pause_and_help() {
    needs!("tmux");
    let node = node();
    let tmux = top(&node, (80, 24), "");
    tmux.wait_for("rates", |screen| {
        cells(screen, "busy").first().is_some_and(|cpu| near(cpu, 90.0))
    });

    tmux.keys(&["m"]);
    tmux.wait_for("the order of memory", |screen| {
        screen[1].contains("MEM▼") && place(screen, "busy") < place(screen, "idle")
    });
    tmux.keys(&["r"]);
    tmux.wait_for("the other way round", |screen| {
        screen[1].contains("MEM▲") && place(screen, "idle") < place(screen, "busy")
    });
    tmux.keys(&["a"]);
    tmux.wait_for("the alphabet", |screen| {
        screen[1].starts_with("NAME▼") && place(screen, "busy") < place(screen, "idle")
    });

    tmux.keys(&["End", "Enter"]);
    tmux.wait_for("a folded pod", |screen| {
        screen.iter().any(|line| line.starts_with("▸ shop/web-7d4b9")) && place(screen, "nginx") == usize::MAX
    });
    tmux.keys(&["Right"]);
    tmux.wait_for("an unfolded pod", |screen| place(screen, "└ nginx") != usize::MAX);

    tmux.keys(&["/", "n", "g", "i"]);
    tmux.wait_for("the filter", |screen| {
        screen[23].starts_with("/ngi_") && place(screen, "nginx") == 3 && place(screen, "busy") == usize::MAX
    });
    tmux.keys(&["Enter"]);
    tmux.wait_for("the filter kept", |screen| screen[23].starts_with("filter: ngi"));
    tmux.keys(&["Escape"]);
    tmux.wait_for("everything", |screen| place(screen, "busy") != usize::MAX);

    tmux.keys(&["Space"]);
    let paused = tmux.wait_for("the pause", |screen| screen[0].ends_with("PAUSED"));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(tmux.screen(), paused, "nothing moves");
    tmux.keys(&["Space"]);
    tmux.wait_for("going on", |screen| !screen[0].contains("PAUSED"));

    tmux.keys(&["?"]);
    tmux.wait_for("the help", |screen| {
        screen.iter().any(|line| line.contains("working set: memory"))
    });
    tmux.keys(&["x"]);
    tmux.wait_for("the table", |screen| screen[1].starts_with("NAME"));
    tmux.keys(&["d"]);
    tmux.wait_for("no pane", |screen| {
        !screen.iter().any(|line| line.starts_with("──"))
    });
}

#[test]
fn it_follows_the_terminals_size() {
    needs!("tmux");
    let node = node();
    let tmux = top(&node, (80, 24), "");
    tmux.wait_for("the table", |screen| place(screen, "busy") != usize::MAX);
    for (width, height) in [(120, 40), (40, 10), (200, 50), (80, 24)] {
        tmux.resize(width, height);
        tmux.wait_for("the new size", |screen| {
            screen.len() == usize::from(height)
                && screen[0].starts_with("kata-runtime top")
                && screen[usize::from(height) - 1].starts_with("q quit")
                && place(screen, "busy") != usize::MAX
                && screen
                    .iter()
                    .filter(|line| line.starts_with("kata-runtime top"))
                    .count()
                    == 1
        });
    }
}

#[test]
fn a_hung_shim_says_so_and_the_rest_goes_on() {
    needs!("tmux");
    let node = node();
    let hang = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let (switch, counter) = (hang.clone(), asked.clone());
    let healthy = busy(10, 1 << 20);
    node.task("sleepy", move |call| {
        if call.method == "Stats" {
            counter.fetch_add(1, Ordering::SeqCst);
            if switch.load(Ordering::SeqCst) {
                return Reply::After(
                    Duration::from_secs(4),
                    Box::new(using(Duration::from_secs(9), 1 << 20)),
                );
            }
        }
        healthy(call)
    });
    let tmux = top(&node, (80, 24), "--timeout 500ms");
    tmux.wait_for("rates", |screen| {
        cells(screen, "sleepy").first().is_some_and(|cpu| near(cpu, 10.0))
    });
    hang.store(true, Ordering::SeqCst);
    let screen = tmux.wait_for("HUNG", |screen| {
        cells(screen, "sleepy")
            .first()
            .is_some_and(|word| word == "HUNG:")
    });
    let sleepy = screen.iter().find(|line| line.contains("sleepy")).unwrap();
    assert!(sleepy.contains("no answer to Stats for"), "{sleepy}");
    assert!(screen[0].contains("1 hung"), "{}", screen[0]);
    // In dim letters (2 in the styles of ECMA-48), and the others go on.
    let styled = tmux.styled();
    let line = styled.iter().find(|line| line.contains("sleepy")).unwrap();
    assert!(line.contains("\u{1b}[2m") || line.contains("[0;2m"), "{line:?}");
    assert!(
        cells(&screen, "busy").first().is_some_and(|cpu| near(cpu, 90.0)),
        "{screen:#?}"
    );
    // Nothing is sent while one call is open; when it has ended, the shim is asked again.
    let before = asked.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(asked.load(Ordering::SeqCst), before);
    hang.store(false, Ordering::SeqCst);
    tmux.wait_for("its recovery", |screen| {
        cells(screen, "sleepy")
            .get(1)
            .is_some_and(|memory| memory == "1M")
            && !screen[0].contains("hung")
    });
}

#[test]
fn containers_come_and_go_by_themselves() {
    needs!("tmux");
    let node = node();
    let tmux = top(&node, (80, 24), "");
    tmux.wait_for("the table", |screen| place(screen, "busy") != usize::MAX);
    node.task("newcomer", busy(5, 1 << 20));
    tmux.wait_for("the new one", |screen| place(screen, "newcomer") != usize::MAX);
    let tasks = node.state_dir().join("io.containerd.runtime.v2.task/default");
    std::fs::rename(tasks.join("newcomer"), tasks.join(".newcomer")).unwrap();
    tmux.wait_for("it gone", |screen| place(screen, "newcomer") == usize::MAX);
}

#[test]
fn what_has_lost_its_sandbox_or_shares_its_id_is_told_apart() {
    needs!("tmux");
    let node = Node::new();
    let (_, socket) = node.bundle("k8s.io", "app", MEMBER);
    mock::serve(&socket, busy(10, 8 << 20));
    for namespace in ["moby", "default"] {
        let (_, socket) = node.bundle(namespace, "twin", &[]);
        mock::serve(&socket, busy(0, 1 << 20));
    }
    let tmux = top(&node, (80, 24), "");
    // The sandbox's id stands over its container, with what that uses.
    let screen = tmux.wait_for("rates", |screen| {
        cells(screen, "▾ pod").first().is_some_and(|cpu| near(cpu, 10.0))
    });
    assert_eq!(place(&screen, "└ nginx"), place(&screen, "▾ pod") + 1);
    assert!(screen[0].contains("1 pod, 3 containers"), "{}", screen[0]);
    for twin in ["  default:twin", "  moby:twin"] {
        assert!(screen.iter().any(|line| line.starts_with(twin)), "{screen:#?}");
    }
}

#[test]
fn names_of_pods_never_reach_the_terminal_as_they_are() {
    needs!("tmux");
    let node = Node::new();
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}web";
    let (_, socket) = node.bundle(
        "k8s.io",
        "evil",
        &[
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-namespace", "日本"),
            ("io.kubernetes.cri.sandbox-name", evil),
        ],
    );
    mock::serve(&socket, busy(50, 1 << 20));
    let tmux = top(&node, (120, 24), "");
    let screen = tmux.wait_for("rates", |screen| screen.iter().any(|line| line.contains("1M")));
    let line = screen.iter().find(|line| line.contains("日本")).unwrap();
    assert!(
        line.starts_with("▾ 日本/\\u{1b}[2J\\u{1b}]0;owned\\u{7}web"),
        "{line}"
    );
    assert_ne!(tmux.value("#{pane_title}"), "owned");
}

#[test]
fn without_colour_and_in_ascii() {
    needs!("tmux");
    let node = node();
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    let state = node.state_dir().display();
    let tmux = Tmux::start(
        (80, 24),
        &format!("env NO_COLOR=1 LC_ALL=C {program} --state {state} top --interval 300ms"),
    );
    tmux.wait_for("rates", |screen| {
        cells(screen, "busy").first().is_some_and(|cpu| near(cpu, 90.0))
    });
    assert!(tmux.screen().iter().all(|line| line.is_ascii()));
    let styled = tmux.styled().join("\n");
    let coloured = ["[31m", "[32m", "[33m", "[36m", ";31m", ";32m", ";33m", ";36m"];
    assert!(!coloured.iter().any(|code| styled.contains(code)), "{styled:?}");
    assert!(styled.contains("########"));
}

/// The ways in which it ends, and the status that the shell sees.
#[test]
fn the_terminal_is_given_back_however_it_ends() {
    needs!("tmux");
    let node = node();
    for (end, status) in [
        (End::Key("q"), "0"),
        // Typed at once, as a terminal sends a key with Alt held.
        (End::Key("M-q"), "0"),
        (End::Key("C-c"), "0"),
        (End::Signal("TERM"), "143"),
        (End::Signal("HUP"), "129"),
        (End::Signal("INT"), "130"),
    ] {
        let tmux = top(&node, (80, 24), "");
        tmux.wait_for("the table", |screen| place(screen, "busy") != usize::MAX);
        assert_eq!(tmux.value("#{alternate_on} #{cursor_flag}"), "1 0");
        match end {
            End::Key(key) => tmux.keys(&[key]),
            End::Signal(signal) => tmux.signal(signal),
        }
        tmux.wait_for("the end", |screen| {
            screen.iter().any(|line| line == &format!("status={status}"))
        });
        assert_eq!(
            tmux.value("#{alternate_on} #{cursor_flag} #{wrap_flag}"),
            "0 1 1",
            "{status}"
        );
        assert_eq!(tmux.settings_after(), tmux.settings_before(), "{status}");
    }
}

enum End {
    Key(&'static str),
    Signal(&'static str),
}

#[test]
fn it_can_be_suspended_and_goes_on() {
    needs!("tmux");
    let node = node();
    for suspend in ["key", "signal"] {
        let tmux = top(&node, (80, 24), "");
        tmux.wait_for("the table", |screen| place(screen, "busy") != usize::MAX);
        match suspend {
            "key" => tmux.keys(&["C-z"]),
            _ => tmux.signal("TSTP"),
        }
        tmux.wait_for("the shell", |screen| {
            screen.iter().any(|line| line.contains("stopped"))
        });
        assert_eq!(tmux.value("#{alternate_on} #{cursor_flag}"), "0 1");
        tmux.keys(&["f", "g", "Enter"]);
        tmux.wait_for("the table again", |screen| {
            place(screen, "busy") != usize::MAX && screen[0].starts_with("kata-runtime top")
        });
        tmux.keys(&["q"]);
        tmux.wait_for("the end", |screen| screen.iter().any(|line| line == "status=0"));
    }
}

#[test]
fn where_no_shell_could_continue_it_it_is_not_stopped() {
    needs!("tmux");
    let node = node();
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    let state = node.state_dir().display();
    let tmux = Tmux::bare(
        (80, 24),
        &format!("{program} --state {state} top --interval 300ms"),
    );
    tmux.wait_for("the table", |screen| place(screen, "busy") != usize::MAX);
    tmux.keys(&["C-z"]);
    tmux.keys(&["?"]);
    tmux.wait_for("the help", |screen| {
        screen.iter().any(|line| line.contains("working set: memory"))
    });
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let node = node();
    let ran = node.run(&["top"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    assert!(
        ran.stderr.contains("needs a terminal") && ran.stderr.contains("events --all --format table"),
        "{}",
        ran.stderr
    );
}

/// The release build aborts after a panic: what gives the terminal back is the hook alone.
#[test]
fn a_panic_gives_the_terminal_back_and_is_read() {
    needs!("tmux");
    let this = std::env::current_exe().unwrap();
    let command = format!(
        "env KR_PANIC=1 RUST_BACKTRACE=0 {} --exact panics_while_it_has_the_terminal --nocapture",
        this.display()
    );
    let tmux = Tmux::start((80, 24), &command);
    tmux.wait_for("the other screen", |screen| screen[0].starts_with("drawn"));
    assert_eq!(tmux.value("#{alternate_on} #{cursor_flag}"), "1 0");
    tmux.keys(&["x"]);
    tmux.wait_for("the end", |screen| screen.iter().any(|line| line == "status=101"));
    assert!(
        tmux.screen().iter().any(|line| line.contains("panicked at")),
        "{:#?}",
        tmux.screen()
    );
    assert_eq!(tmux.value("#{alternate_on} #{cursor_flag} #{wrap_flag}"), "0 1 1");
    assert_eq!(tmux.settings_after(), tmux.settings_before());
}

/// The program of the test above; by itself it has nothing to do.
#[test]
fn panics_while_it_has_the_terminal() {
    if std::env::var_os("KR_PANIC").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut screen = screen::Screen::open().unwrap();
        screen.draw(|buffer| {
            buffer.set_string(0, 0, "drawn", ratatui::style::Style::new());
        });
        screen.next().await.unwrap();
        // As in the release build, where nothing is unwound.
        std::mem::forget(screen);
        panic!("on purpose");
    });
}

/// A terminal that takes nothing must not keep the program from ending.
#[test]
fn a_terminal_that_is_gone_or_stuck_ends_it_too() {
    needs!("tmux");
    let node = node();
    let tmux = top(&node, (80, 24), "");
    tmux.wait_for("the table", |screen| place(screen, "busy") != usize::MAX);
    let pid = tmux.pid();
    // Nobody reads what it draws any more: it draws until the terminal's buffer is full.
    tmux.freeze();
    std::thread::sleep(Duration::from_secs(3));
    tmux.signal("TERM");
    let begin = Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    tmux.thaw();
}
