//! What is in the page.

use std::fs;

use test_needs::needs;

use crate::exporter::label;
use crate::mock::{self, Reply, http_chunked, http_ok};
use crate::support::{Answer, GO, KataDir, Node, RUST, recorded, serve_monitor};

/// A sandbox's labels, as kata-monitor has them.
fn kata_labels(id: &str) -> [(&str, &str); 4] {
    [
        ("sandbox_id", id),
        ("cri_uid", "7c312b48-3d0f-4f4e-9c3a-000000000001"),
        ("cri_name", id),
        ("cri_namespace", "shop"),
    ]
}

#[test]
fn every_sandboxs_families_are_there_with_their_labels() {
    let node = Node::new();
    node.pod("one");
    node.pod_with("two", recorded, Answer::Bytes(http_ok(RUST)));
    let page = node.monitor().scrape();
    page.check();
    // Values as the sandboxes wrote them.
    let load = [("item", "load1")];
    let sample = |id| [&load[..], &kata_labels(id)].concat();
    assert_eq!(
        page.value("kata_guest_load", &sample("one")),
        in_fixture(GO, "kata_guest_load{item=\"load1\"}")
    );
    assert_eq!(
        page.value("kata_guest_load", &sample("two")),
        in_fixture(RUST, "kata_guest_load{item=\"load1\"}")
    );
    let limit = page.value("kata_shim_go_gc_gomemlimit_bytes", &kata_labels("one"));
    assert_eq!(limit, "9.223372036854776e+18");
    for old in ["go_gc_gomemlimit_bytes", "process_open_fds"] {
        assert!(page.samples(old, &[]).is_empty(), "{old} is renamed");
    }
    assert_eq!(page.sandbox("one"), ("1", None));
    assert_eq!(page.sandbox("two"), ("1", None));

    // All samples of the recordings, and no family in two places.
    let count = |text: &str, id: &str| {
        text.lines()
            .filter(|line| !line.starts_with('#') && line.contains(&format!("sandbox_id=\"{id}\"")))
            .count()
    };
    let recorded = |body: &[u8]| {
        let text = std::str::from_utf8(body).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .count()
    };
    // Beside the recorded ones: up, duration, lost lines, and two rows of each of the two containers.
    assert_eq!(count(&page.text, "one"), recorded(GO) + 7);
    assert_eq!(count(&page.text, "two"), recorded(RUST) + 7);
    let types: Vec<_> = page
        .text
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    let mut sorted = types.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(types, sorted, "in order, each once");
}

fn in_fixture<'a>(body: &'a [u8], series: &str) -> &'a str {
    let text = std::str::from_utf8(body).unwrap();
    let line = text.lines().find(|line| line.starts_with(series)).unwrap();
    line.rsplit_once(' ').unwrap().1
}

#[test]
fn containers_have_cadvisors_names_and_the_kubelets_labels() {
    let node = Node::new();
    node.pod("pod1");
    let page = node.monitor().scrape();
    let labels = [
        ("id", "pod1-app"),
        ("name", "pod1-app"),
        ("container", "app"),
        ("image", "registry.example/app:1"),
        ("namespace", "shop"),
        ("pod", "pod1"),
    ];
    // The recorded reply in nanoseconds: total 132360000, kernel 68462000, user 63898000.
    for (name, value) in [
        ("container_cpu_usage_seconds_total", "0.13236"),
        ("container_cpu_system_seconds_total", "0.068462"),
        ("container_cpu_user_seconds_total", "0.063898"),
        ("container_memory_usage_bytes", "1777664"),
        ("container_memory_working_set_bytes", "1777664"),
        ("container_memory_max_usage_bytes", "1777664"),
        ("container_spec_memory_limit_bytes", "0"),
        ("container_threads", "1"),
    ] {
        assert_eq!(page.value(name, &labels), value, "{name}");
    }
    assert_eq!(
        page.samples(
            "container_cpu_usage_seconds_total",
            &[("cpu", "total"), ("id", "pod1-app")]
        )
        .len(),
        1
    );
    // What the reply does not have is not there: Kata 3.30 reports no cache, and no quota.
    for name in [
        "container_memory_cache",
        "container_memory_rss",
        "container_cpu_cfs_periods_total",
    ] {
        assert!(page.samples(name, &labels).is_empty(), "{name}");
    }
    let sandbox = page.samples("container_cpu_usage_seconds_total", &[("id", "pod1")]);
    assert_eq!(sandbox.len(), 1);
    let labels = ["container", "image"].map(|key| label(sandbox[0], key));
    assert_eq!(labels, [None, None], "dashboards leave it out by either");
    assert_eq!(
        page.value(
            "kata_monitor_container_up",
            &[("id", "pod1-app"), ("sandbox_id", "pod1")]
        ),
        "1"
    );
}

#[test]
fn every_number_of_a_full_reply_has_its_place() {
    let node = Node::new();
    // The documented example: what each number means is written down beside it.
    node.node.task("plain", mock::healthy);
    let page = node.monitor().scrape();
    page.check();
    let plain = ("id", "plain");
    for (name, more, value) in [
        (
            "container_cpu_usage_seconds_total",
            ("cpu", "total"),
            "0.02544457",
        ),
        ("container_cpu_user_seconds_total", plain, "0"),
        ("container_cpu_system_seconds_total", plain, "0.02"),
        ("container_memory_cache", plain, "811008"),
        ("container_memory_usage_bytes", plain, "1294336"),
        ("container_memory_max_usage_bytes", plain, "2625536"),
        ("container_memory_failcnt", plain, "0"),
        ("container_memory_kernel_usage", plain, "368640"),
        ("container_threads", plain, "1"),
    ] {
        let documented = documented(name);
        assert_eq!(
            page.value(name, &[plain, more]),
            documented.as_deref().unwrap_or(value),
            "{name}"
        );
    }
    let limits = [
        "container_spec_memory_limit_bytes",
        "container_spec_memory_swap_limit_bytes",
    ];
    assert_eq!(
        limits.map(|name| page.value(name, &[plain])),
        ["0", "0"],
        "no limit is 0, as cAdvisor has it"
    );
    // Who made it is told of those that are in no pod.
    let namespace = ("containerd_namespace", "default");
    assert_eq!(
        page.samples("container_memory_usage_bytes", &[plain, namespace])
            .len(),
        1
    );
}

/// The number that the documented output has in this place, as the page should have it.
fn documented(name: &str) -> Option<String> {
    let events: serde_json::Value = serde_json::from_str(include_str!(
        "../../crates/shimstat/tests/fixtures/documented-example/events.expected.json"
    ))
    .unwrap();
    let number = |pointer: &str| events.pointer(pointer).and_then(|value| value.as_u64());
    let seconds = |nanoseconds: u64| {
        let text = format!(
            "{}.{:09}",
            nanoseconds / 1_000_000_000,
            nanoseconds % 1_000_000_000
        );
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    match name {
        "container_cpu_usage_seconds_total" => number("/data/cpu/usage/total").map(seconds),
        "container_cpu_user_seconds_total" => number("/data/cpu/usage/user").map(seconds),
        "container_cpu_system_seconds_total" => number("/data/cpu/usage/kernel").map(seconds),
        "container_memory_cache" => number("/data/memory/cache").map(|n| n.to_string()),
        "container_memory_usage_bytes" => number("/data/memory/usage/usage").map(|n| n.to_string()),
        "container_memory_max_usage_bytes" => number("/data/memory/usage/max").map(|n| n.to_string()),
        "container_memory_failcnt" => number("/data/memory/usage/failcnt").map(|n| n.to_string()),
        "container_memory_kernel_usage" => number("/data/memory/kernel/usage").map(|n| n.to_string()),
        "container_threads" => number("/data/pids/current").map(|n| n.to_string()),
        _ => None,
    }
}

#[test]
fn both_cgroup_versions_are_served_alike() {
    let node = Node::new();
    let reply =
        include_bytes!("../../crates/shimstat/tests/fixtures/runc-cgroup-v2/stats-containerd-2.1.v2.bin");
    node.node.task("v2", move |call| match call.method.as_str() {
        "State" => mock::running(0),
        _ => mock::stats(mock::V2, reply),
    });
    let page = node.monitor().scrape();
    page.check();
    // From the container's cgroup files, read beside the reply.
    assert_eq!(
        page.value("container_spec_memory_limit_bytes", &[("id", "v2")]),
        "33554432"
    );
    let throttled = page.value("container_cpu_cfs_throttled_periods_total", &[("id", "v2")]);
    assert!(throttled.parse::<u64>().unwrap() > 0);
}

#[test]
fn the_same_id_in_two_namespaces_is_two_series() {
    let node = Node::new();
    for namespace in ["default", "moby"] {
        let (_, socket) = node.node.bundle(namespace, "twin", &[]);
        mock::serve(&socket, mock::healthy);
    }
    let page = node.monitor().scrape();
    page.check();
    let samples = page.samples("container_memory_usage_bytes", &[("id", "twin")]);
    assert_eq!(samples.len(), 2, "{samples:?}");
    assert_ne!(samples[0], samples[1]);
}

#[test]
fn a_sandbox_without_a_bundle_is_served_without_names() {
    needs!("root");
    let node = Node::new();
    let dir = KataDir::new("/run/vc/sbs", "kr-mon-orphan");
    serve_monitor(&dir.socket(), Answer::Bytes(http_chunked(GO)));
    let rust = KataDir::new("/run/kata", "kr-mon-orphan-rs");
    fs::write(
        rust.path.join("state.json"),
        include_str!("../../crates/shimstat/tests/fixtures/kata-3.30-rs/state.json"),
    )
    .unwrap();
    serve_monitor(&rust.socket(), Answer::Bytes(http_ok(RUST)));
    let monitor = node.monitor();
    let page = monitor.scrape();
    for id in [&dir.id, &rust.id] {
        let labels = [
            ("sandbox_id", id.as_str()),
            ("cri_uid", ""),
            ("cri_name", ""),
            ("cri_namespace", ""),
        ];
        assert_eq!(
            page.samples("kata_guest_load", &[&labels[..], &[("item", "load1")]].concat())
                .len(),
            1
        );
        assert_eq!(page.sandbox(id), ("1", None));
        assert!(monitor.get("/sandboxes").text().lines().any(|line| line == id));
    }
    // One namespace of containerd's is none of theirs.
    let page = node.monitor_with(&["--namespace", "k8s.io"], &[]).scrape();
    assert!(!page.text.contains(&dir.id));
}

#[test]
fn families_can_be_chosen_and_what_is_not_wanted_is_not_asked() {
    let node = Node::new();
    let pod = node.pod("pod1");
    let monitor = node.monitor();
    let get = |path: &str| monitor.get(path).text().to_string();
    let guest = get("/metrics?filter_family=kata_guest_,kata_shim_go_g");
    assert!(guest.contains("kata_guest_load{") && guest.contains("kata_shim_go_goroutines{"));
    assert!(
        !guest.contains("kata_agent") && !guest.contains("kata_monitor") && !guest.contains("container_")
    );
    assert_eq!((pod.methods(), pod.questions()), (vec!["State".to_string()], 1));
    let containers = get("/metrics?filter_family=container_memory");
    assert!(containers.contains("container_memory_usage_bytes{") && !containers.contains("kata_"));
    assert_eq!(pod.questions(), 1, "its monitor was not needed");
    assert_eq!(get("/metrics?filter_family=nothing_is_called_so"), "");
}

#[test]
fn one_sandbox_answers_for_itself_as_it_came() {
    let node = Node::new();
    node.pod("pod1");
    let stopped = node.pod_with("pod2", |_| mock::stopped(1), Answer::Bytes(http_ok(RUST)));
    let monitor = node.monitor();
    let one = monitor.get("/metrics?sandbox=pod1");
    assert_eq!(one.status, 200);
    assert!(one.body == GO, "{} bytes", one.body.len());
    let some = monitor.get("/metrics?sandbox=pod1&filter_family=kata_guest_load");
    assert!(
        some.text().lines().all(|line| line.contains("kata_guest_load")),
        "{}",
        some.text()
    );
    for (path, error) in [
        ("/metrics?sandbox=pod", "no sandbox pod "),
        ("/metrics?sandbox=../../etc", "no sandbox ../../etc "),
        ("/metrics?sandbox=pod2", "its task has stopped"),
    ] {
        let response = monitor.get(path);
        assert_eq!(response.status, 500, "{path}");
        assert!(response.text().contains(error), "{}", response.text());
    }
    assert_eq!(stopped.questions(), 0);
}

#[test]
fn the_other_pages_are_as_kata_monitors() {
    let node = Node::new();
    node.pod("pod1");
    node.pod("pod2");
    node.node.task("runc", |_| Reply::Hang);
    let monitor = node.monitor();
    let list = monitor.get("/sandboxes");
    // Sandboxes of other tests may be there as well.
    let could_be = ["pod1", "pod1-app", "pod2", "pod2-app", "runc"];
    let ours: Vec<_> = list
        .text()
        .lines()
        .filter(|line| could_be.contains(line))
        .collect();
    assert_eq!(ours, ["pod1", "pod2"]);
    let html = monitor.request("GET", "/sandboxes", &[("Accept", "text/html,*/*;q=0.8")]);
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(html.text().contains("/metrics?sandbox=pod2") && html.text().contains("<td>shop</td>"));

    let url = monitor.get("/agent-url?sandbox=pod1");
    assert_eq!((url.status, url.text()), (200, "remote:///agent\n\n"));
    assert_eq!(monitor.get("/agent-url").status, 400);
    assert_eq!(monitor.get("/agent-url?sandbox=none").status, 400);

    let health = monitor.get("/healthz");
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    let landing = monitor.request("GET", "/", &[("Accept", "text/html")]);
    assert!(landing.text().starts_with("<!DOCTYPE html>") && landing.text().contains("href=\"/metrics\""));
    assert!(monitor.get("/").text().contains("/metrics"));
    assert_eq!(monitor.get("/nowhere").status, 404);
}

#[test]
fn the_exporter_tells_of_itself_under_kata_monitors_names() {
    let node = Node::new();
    node.pod("pod1");
    let monitor = node.monitor();
    monitor.scrape();
    let page = monitor.scrape();
    assert_eq!(page.value("kata_monitor_scrape_count", &[]), "2");
    assert_eq!(page.value("kata_monitor_scrape_failed_count", &[]), "0");
    assert_eq!(
        page.value("kata_monitor_scrape_durations_histogram_milliseconds_count", &[]),
        "1"
    );
    assert_eq!(page.value("kata_monitor_go_threads", &[]), "2");
    let shims: usize = page
        .value("kata_monitor_running_shim_count", &[])
        .parse()
        .unwrap();
    assert!(shims >= 1);
    for name in [
        "kata_monitor_process_cpu_seconds_total",
        "kata_monitor_process_open_fds",
        "kata_monitor_process_max_fds",
        "kata_monitor_process_resident_memory_bytes",
        "kata_monitor_process_start_time_seconds",
        "kata_monitor_process_virtual_memory_bytes",
        "kata_monitor_process_virtual_memory_max_bytes",
    ] {
        assert_eq!(page.samples(name, &[]).len(), 1, "{name}");
    }
}
