//! How sandboxes are asked: all at once, each once, none that it might harm.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use test_needs::needs;

use crate::mock::{self, Reply, http_chunked, http_ok};
use crate::support::{Answer, GO, KataDir, Node, Pod, RUST, eventually, recorded, serve_monitor};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_has_come_is_there_and_what_has_gone_is_not() {
    let node = Node::new();
    let monitor = node.monitor();
    assert!(!monitor.scrape().text.contains("pod1"));
    node.pod("pod1");
    assert_eq!(monitor.scrape().sandbox("pod1"), ("1", None));
    node.remove("pod1");
    assert!(!monitor.scrape().text.contains("pod1"));
}

#[test]
fn a_stopped_sandbox_is_not_served_as_if_it_ran() {
    let node = Node::new();
    let pod = node.pod_with("pod1", |_| mock::stopped(137), Answer::Bytes(http_ok(RUST)));
    let page = node.monitor().scrape();
    assert_eq!(page.sandbox("pod1"), ("0", Some("stopped")));
    assert!(
        page.samples("kata_guest_load", &[("sandbox_id", "pod1")])
            .is_empty()
    );
    assert_eq!(
        page.value(
            "kata_monitor_container_failure",
            &[("id", "pod1"), ("reason", "stopped")]
        ),
        "1"
    );
    assert_eq!(pod.questions(), 0);
    assert!(pod.methods().iter().all(|method| method == "State"));
}

#[test]
fn a_shim_that_does_not_tell_its_state_is_asked_nothing_else() {
    let node = Node::new();
    let pod = node.pod_with("hung", |_| Reply::Hang, Answer::Bytes(http_ok(RUST)));
    node.pod("well");
    let monitor = node.monitor_with(&["--timeout", "400ms"], &[]);
    let started = Instant::now();
    let page = monitor.scrape();
    assert!(started.elapsed() < 3 * SECOND, "{:?}", started.elapsed());
    assert_eq!(page.sandbox("hung"), ("0", Some("timeout")));
    assert_eq!(
        page.value(
            "kata_monitor_container_failure",
            &[("id", "hung-app"), ("reason", "timeout")]
        ),
        "1"
    );
    assert_eq!(page.sandbox("well"), ("1", None));
    // The call is still in flight: the next scrape neither waits nor asks.
    let started = Instant::now();
    let page = monitor.scrape();
    assert!(
        started.elapsed() < Duration::from_millis(350),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(page.sandbox("hung"), ("0", Some("timeout")));
    assert_eq!(pod.methods(), ["State"]);
    assert_eq!(pod.questions(), 0);
}

#[test]
fn a_hung_guest_costs_its_own_rows_and_is_left_alone() {
    let node = Node::new();
    let late = 2 * SECOND;
    let hung = node.pod_with("hung", recorded, Answer::After(late, http_chunked(GO)));
    for number in 0..20 {
        node.pod(&format!("well{number}"));
    }
    let monitor = node.monitor_with(&["--timeout", "500ms"], &["--max-concurrent", "4"]);
    let started = Instant::now();
    let page = monitor.scrape();
    assert!(started.elapsed() < late, "{:?}", started.elapsed());
    assert_eq!(page.sandbox("hung"), ("0", Some("timeout")));
    for number in 0..20 {
        assert_eq!(page.sandbox(&format!("well{number}")), ("1", None));
    }
    page.check();
    // Its statistics would hold up whoever wants to end it: they are not asked for.
    assert_eq!(hung.methods(), ["State"]);
    // Asked again neither while the answer is awaited, nor for a while after it.
    monitor.scrape();
    eventually("the late answer is there", || {
        hung.asked.lock().unwrap()[0].answered.is_some()
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(monitor.scrape().sandbox("hung"), ("0", Some("resting")));
    assert_eq!((hung.questions(), hung.methods().len()), (1, 1));
    // It took two seconds, and rests for as long.
    eventually("it is asked again", || {
        monitor.scrape();
        hung.questions() == 2
    });
    let asked = hung.asked.lock().unwrap();
    let rest = asked[1].came.duration_since(asked[0].answered.unwrap());
    assert!(rest > late - SECOND / 4, "{rest:?}");
}

#[test]
fn hung_sandboxes_cost_the_deadline_once() {
    let node = Node::new();
    for number in 0..12 {
        node.pod_with(&format!("hung{number}"), recorded, Answer::Hang);
        node.pod(&format!("well{number}"));
    }
    let monitor = node.monitor_with(&["--timeout", "1s"], &["--max-concurrent", "2"]);
    let started = Instant::now();
    let page = monitor.scrape();
    let took = started.elapsed();
    // Six times two hung ones, each for a second, would be six seconds and more.
    assert!(took < 4 * SECOND, "{took:?}");
    for number in 0..12 {
        assert_eq!(page.sandbox(&format!("hung{number}")), ("0", Some("timeout")));
        assert_eq!(page.sandbox(&format!("well{number}")), ("1", None));
    }
}

#[test]
fn the_scrape_keeps_within_the_scrapers_time() {
    let node = Node::new();
    node.pod_with("hung", recorded, Answer::Hang);
    node.pod("well");
    let monitor = node.monitor_with(&["--timeout", "20s"], &[]);
    let timeout = [("X-Prometheus-Scrape-Timeout-Seconds", "1.5")];
    let response = monitor.request("GET", "/metrics", &timeout);
    assert!(response.took < Duration::from_millis(1500), "{:?}", response.took);
    let page = crate::support::Page::read(response.text());
    assert_eq!(page.sandbox("hung"), ("0", Some("timeout")));
    assert_eq!(page.sandbox("well"), ("1", None));
}

#[test]
fn two_scrapers_at_once_cost_each_sandbox_one_call() {
    let node = Node::new();
    let slow = Answer::After(Duration::from_millis(700), http_chunked(GO));
    let pods: Vec<Pod> = (0..5)
        .map(|number| {
            let answer = if number == 0 {
                slow.clone()
            } else {
                Answer::Bytes(http_chunked(GO))
            };
            node.pod_with(&format!("pod{number}"), recorded, answer)
        })
        .collect();
    let monitor = node.monitor();
    let scrapes: Vec<_> = std::thread::scope(|scope| {
        let scrape = || monitor.scrape();
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(scrape)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for page in &scrapes {
        for number in 0..5 {
            assert_eq!(page.sandbox(&format!("pod{number}")), ("1", None));
            let id = format!("pod{number}-app");
            assert_eq!(
                page.samples("container_cpu_usage_seconds_total", &[("id", &id)])
                    .len(),
                1
            );
        }
    }
    for pod in &pods {
        assert_eq!(pod.questions(), 1);
        // State before the page, and State and Stats of the sandbox and of its container.
        assert_eq!(pod.methods(), ["State", "State", "Stats", "State", "Stats"]);
    }
}

#[test]
fn a_sandbox_never_has_two_calls_at_a_time() {
    let node = Node::new();
    let slowly = |call: &mock::Call| Reply::After(Duration::from_millis(20), Box::new(recorded(call)));
    let pod = node.pod_with(
        "pod1",
        slowly,
        Answer::After(Duration::from_millis(50), http_chunked(GO)),
    );
    let monitor = node.monitor();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let monitor = &monitor;
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(45) * number);
                match number % 3 {
                    0 => drop(monitor.scrape()),
                    1 => assert_eq!(monitor.get("/metrics?sandbox=pod1").status, 200),
                    _ => assert_eq!(monitor.get("/metrics?filter_family=container_").status, 200),
                }
            });
        }
    });
    let shim = pod
        .calls
        .lock()
        .unwrap()
        .iter()
        .map(|call| (call.came, call.answered.unwrap()))
        .collect::<Vec<_>>();
    let asked = pod.asked.lock().unwrap();
    let mut all: Vec<_> = shim
        .into_iter()
        .chain(asked.iter().map(|one| (one.came, one.answered.unwrap())))
        .collect();
    all.sort();
    assert!(all.len() >= 7, "{}", all.len());
    for pair in all.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "one began before the other was answered");
    }
}

#[test]
fn a_sandbox_at_risk_is_not_asked_and_its_row_says_so() {
    needs!("root");
    let node = Node::new();
    for hypervisor in ["qemu", "firecracker"] {
        let dir = KataDir::new("/run/kata", "kr-mon-risk");
        let state = format!(r#"{{"hypervisor":{{"hypervisor_type":"{hypervisor}"}}}}"#);
        fs::write(dir.path.join("state.json"), state).unwrap();
        let asked = serve_monitor(&dir.socket(), Answer::Bytes(http_ok(RUST)));
        let monitor = node.monitor_with(&["-v"], &[]);
        let page = monitor.scrape();
        assert_eq!(page.sandbox(&dir.id), ("0", Some("risk")));
        assert_eq!(monitor.get(&format!("/metrics?sandbox={}", dir.id)).status, 500);
        assert!(asked.lock().unwrap().is_empty(), "nothing was asked");
        eventually("the reason is told", || {
            monitor
                .said()
                .contains(&format!("sandbox {}: it runs on {hypervisor}", dir.id))
        });
        // Where its agent listens is told without the hypervisor.
        assert_eq!(monitor.get(&format!("/agent-url?sandbox={}", dir.id)).status, 200);
    }
}

#[test]
fn a_page_without_the_guest_is_served_and_said_to_be_so() {
    let text = std::str::from_utf8(GO).unwrap();
    let without: String = text
        .lines()
        .filter(|line| !line.contains("kata_agent_") && !line.contains("kata_guest_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let node = Node::new();
    let pod = node.pod_with("pod1", recorded, Answer::Bytes(http_chunked(without.as_bytes())));
    let page = node.monitor().scrape();
    assert_eq!(page.sandbox("pod1"), ("1", Some("no_guest")));
    assert_eq!(
        page.samples("kata_shim_threads", &[("sandbox_id", "pod1")]).len(),
        1
    );
    // Stats of a guest that hangs would hold up others.
    assert_eq!(pod.methods(), ["State"]);
    assert_eq!(
        page.value(
            "kata_monitor_container_failure",
            &[("id", "pod1-app"), ("reason", "no_guest")]
        ),
        "1"
    );
}

#[test]
fn why_a_guest_cannot_be_asked_is_said_once_of_each_sandbox() {
    let node = Node::new();
    let (_one, _other) = (node.pod("pod1"), node.pod("pod2"));
    // A stand-in answers every question with its metrics, and those are no address.
    let monitor = node.monitor_with(&["-v"], &[]);
    for _ in 0..2 {
        assert_eq!(monitor.scrape().sandbox("pod1"), ("1", None));
    }
    // What has not changed is not said again; families that ask no sandbox do not make it forget.
    monitor.get("/metrics?filter_family=container_");
    monitor.scrape();
    for id in ["pod1", "pod2"] {
        let why = format!("sandbox {id}: its shim was asked without asking its guest first: ");
        eventually("the reason is told", || monitor.said().contains(&why));
        assert_eq!(monitor.said().matches(&why).count(), 1, "{}", monitor.said());
    }
}

#[test]
fn what_is_dead_says_so_in_its_row() {
    let node = Node::new();
    // Killed: bundle and socket files are left behind.
    let dead = node.pod("dead");
    for name in ["dead.m", "k8s.io-dead.sock"] {
        let path = node.node.state_dir().join(name);
        fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
    }
    let unknown = |_: &mock::Call| Reply::Error(5, "container does not exist x: not found".into());
    node.pod_with("unknown", unknown, Answer::Bytes(http_ok(RUST)));
    let (broken, _) = node.node.bundle("default", "broken", &[]);
    fs::write(broken.join("bootstrap.json"), "{").unwrap();
    // A pod of runc's has no monitor, and no row for one.
    let (_, socket) = node.node.bundle(
        "k8s.io",
        "runc-pod",
        &[("io.kubernetes.cri.container-type", "sandbox")],
    );
    mock::serve(&socket, mock::healthy);
    let well = node.pod("well");
    // Without asking for pages, too: it is what alerts go by.
    let lean = node.monitor_with(&[], &["--profile", "lean"]).scrape();
    assert_eq!(well.questions(), 0);
    let page = node.monitor().scrape();
    for page in [&lean, &page] {
        page.check();
        assert_eq!(page.sandbox("dead"), ("0", Some("gone")));
        assert_eq!(page.sandbox("unknown"), ("0", Some("unknown")));
        assert_eq!(page.sandbox("well"), ("1", None));
    }
    assert!(
        page.samples("kata_monitor_sandbox_up", &[("sandbox_id", "runc-pod")])
            .is_empty()
    );
    let failure = |id| page.samples("kata_monitor_container_failure", &[("id", id)]);
    assert!(
        failure("dead")[0].contains("reason=\"gone\""),
        "{:?}",
        failure("dead")
    );
    assert!(failure("broken")[0].contains("reason=\"no_address\""));
    assert!(failure("runc-pod").is_empty());
    assert_eq!(
        page.value("kata_monitor_container_up", &[("id", "runc-pod")]),
        "1"
    );
    drop(dead);
}

#[test]
fn a_state_directory_that_cannot_be_read_fails_the_scrape() {
    let node = Node::new();
    let tasks = node.node.state_dir().join("io.containerd.runtime.v2.task");
    fs::create_dir_all(&tasks).unwrap();
    // A file where a directory of tasks belongs is one that root cannot list either.
    fs::remove_dir(&tasks).unwrap();
    std::os::unix::fs::symlink(&tasks, &tasks).unwrap();
    let monitor = node.monitor();
    let response = monitor.get("/metrics");
    assert_eq!(response.status, 500);
    assert!(
        response.text().contains("io.containerd.runtime.v2.task"),
        "{}",
        response.text()
    );
    fs::remove_file(&tasks).unwrap();
    assert_eq!(
        monitor.scrape().value("kata_monitor_scrape_failed_count", &[]),
        "1"
    );
}
