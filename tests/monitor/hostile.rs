//! Sandboxes that lie: whatever they send, the page is one that Prometheus takes, and no other sandbox's.

use crate::mock::{self, Reply, http_chunked, http_ok};
use crate::support::{Answer, GO, Node, Page, recorded};

fn pod(node: &Node, id: &str, body: &str) {
    node.pod_with(id, recorded, Answer::Bytes(http_chunked(body.as_bytes())));
}

#[test]
fn lines_that_are_none_cost_themselves() {
    let node = Node::new();
    node.pod("well");
    let body = "# TYPE kata_guest_load gauge\nkata_guest_load{item=\"load1\"} 0.5\n\
                what is this\nkata_guest_load{item=\"load5\"} many\nkata_guest_load{item=\"a\nb\"} 1\n\
                kata_guest_load{item=\"load1\"} 0.7\n{} 1\nkata_guest_load{item=\"load15\"} 0.25";
    pod(&node, "liar", body);
    let page = node.monitor().scrape();
    page.check();
    assert_eq!(page.sandbox("liar"), ("1", None));
    assert_eq!(
        page.value("kata_monitor_sandbox_lost_lines", &[("sandbox_id", "liar")]),
        "6"
    );
    let sample = |item| page.value("kata_guest_load", &[("sandbox_id", "liar"), ("item", item)]);
    assert_eq!((sample("load1"), sample("load15")), ("0.5", "0.25"));
    assert_eq!(
        page.value("kata_monitor_sandbox_lost_lines", &[("sandbox_id", "well")]),
        "0"
    );
}

#[test]
fn sandboxes_that_disagree_on_a_type_do_not_break_the_scrape() {
    let node = Node::new();
    pod(
        &node,
        "one",
        "# TYPE kata_x counter\nkata_x 1\n# TYPE kata_y histogram\nkata_y_bucket{le=\"+Inf\"} 1\nkata_y_sum 1\nkata_y_count 1\n",
    );
    pod(
        &node,
        "two",
        "# TYPE kata_x gauge\nkata_x 2\n# TYPE kata_y gauge\nkata_y 3\n",
    );
    pod(
        &node,
        "three",
        "# TYPE kata_x summary\nkata_x{quantile=\"0.5\"} 3\nkata_x_sum 4\n# TYPE kata_y_sum gauge\nkata_y_sum 5\n",
    );
    let page = node.monitor().scrape();
    page.check();
    for (name, id, value) in [
        ("kata_x", "one", "1"),
        ("kata_x", "two", "2"),
        ("kata_x", "three", "3"),
        ("kata_y_sum", "three", "5"),
    ] {
        assert_eq!(page.value(name, &[("sandbox_id", id)]), value);
    }
    assert_eq!(page.text.matches("# TYPE kata_x ").count(), 1);
}

#[test]
fn a_label_that_the_sandbox_set_itself_is_not_doubled_and_not_believed() {
    let node = Node::new();
    pod(&node, "liar", "kata_x{sandbox_id=\"well\",cri_name=\"well\"} 1\n");
    pod(&node, "well", "kata_x 2\n");
    let page = node.monitor().scrape();
    page.check();
    assert_eq!(
        page.value("kata_x", &[("sandbox_id", "well"), ("cri_name", "well")]),
        "2"
    );
    assert_eq!(
        page.value(
            "kata_x",
            &[("sandbox_id", "liar"), ("exported_sandbox_id", "well")]
        ),
        "1"
    );
}

#[test]
fn figures_of_containers_and_of_the_exporter_are_not_a_sandboxs_to_tell() {
    let node = Node::new();
    pod(
        &node,
        "liar",
        "# TYPE container_memory_usage_bytes counter\n\
         container_memory_usage_bytes{namespace=\"shop\",pod=\"other\",container=\"app\",id=\"x\"} 1e12\n\
         kata_monitor_sandbox_up{sandbox_id=\"dead\"} 1\n",
    );
    let page = node.monitor().scrape();
    page.check();
    assert!(
        page.samples("container_memory_usage_bytes", &[("pod", "other")])
            .is_empty()
    );
    assert_eq!(
        page.samples("kata_shim_container_memory_usage_bytes", &[("pod", "other")])
            .len(),
        1
    );
    assert!(
        page.samples("kata_monitor_sandbox_up", &[("sandbox_id", "dead")])
            .is_empty()
    );
    assert!(page.text.contains("# TYPE container_memory_usage_bytes gauge\n"));
}

#[test]
fn what_is_no_answer_costs_its_sandbox_alone() {
    let node = Node::new();
    node.pod("well");
    let mut half = http_ok(GO);
    half.truncate(5000);
    let mut endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n".to_vec();
    endless.resize(endless.len() + (9 << 20), b'x');
    for (id, answer) in [
        (
            "err500",
            b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops".to_vec(),
        ),
        (
            "gzip",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\0".to_vec(),
        ),
        ("junk", b"\x1b[31mnot http\r\n\r\n".to_vec()),
        ("empty", Vec::new()),
        ("half", half),
        ("endless", endless),
    ] {
        node.pod_with(id, recorded, Answer::Bytes(answer));
    }
    let page = node.monitor().scrape();
    page.check();
    assert_eq!(page.sandbox("well"), ("1", None));
    for id in ["err500", "gzip", "junk", "empty", "half", "endless"] {
        assert_eq!(page.sandbox(id), ("0", Some("malformed")), "{id}");
        assert!(
            page.samples("kata_guest_load", &[("sandbox_id", id)]).is_empty(),
            "{id}"
        );
    }
}

/// Each page is within the limit for one; together they are not within that for all.
#[test]
fn long_pages_cost_one_another_and_nobody_else() {
    let node = Node::new();
    node.pod("well");
    let comments = format!("# {}\n", "x".repeat(1021)).repeat(8000);
    let ids: Vec<String> = (0..36).map(|number| format!("long{number}")).collect();
    for id in &ids {
        // What two pages have in common takes memory once.
        let body = format!("# {id}\n{comments}kata_guest_load 1\n");
        node.pod_with(id, recorded, Answer::Bytes(http_ok(body.as_bytes())));
    }
    let monitor = node.monitor_with(&["--timeout", "50s"], &[]);
    let patient = [("X-Prometheus-Scrape-Timeout-Seconds", "60")];
    let page = Page::read(monitor.request("GET", "/metrics", &patient).text());
    page.check();
    assert_eq!(page.sandbox("well"), ("1", None));
    let count = |row| ids.iter().filter(|id| page.sandbox(id) == row).count();
    // 256 MiB have room for 32 of them and some kB each.
    assert_eq!(count(("1", None)), 32);
    assert_eq!(count(("0", Some("page_budget"))), 4);
    let served = |id: &&String| !page.samples("kata_guest_load", &[("sandbox_id", id)]).is_empty();
    assert_eq!(ids.iter().filter(served).count(), 32);
}

#[test]
fn shims_that_lie_cost_their_own_containers() {
    let node = Node::new();
    node.node.task("well", mock::healthy);
    node.node.task("other", |call| match call.method.as_str() {
        "State" => mock::running(0),
        _ => mock::stats("some.other.Type", b""),
    });
    node.node.task("junk", |call| match call.method.as_str() {
        "State" => mock::running(0),
        _ => mock::stats(mock::V1, b"\xff\xff\xff"),
    });
    node.node.task("closing", |_| Reply::Close);
    let page = node.monitor().scrape();
    page.check();
    let up = |id| page.value("kata_monitor_container_up", &[("id", id)]);
    assert_eq!(["well", "other", "junk", "closing"].map(up), ["1", "0", "0", "0"]);
    for id in ["other", "junk", "closing"] {
        assert_eq!(
            page.value(
                "kata_monitor_container_failure",
                &[("id", id), ("reason", "malformed")]
            ),
            "1"
        );
    }
}

#[test]
fn names_of_pods_may_be_anything() {
    let node = Node::new();
    let name = "a\\b\"c\nd\u{7}é";
    let annotations = [
        ("io.kubernetes.cri.container-type", "sandbox"),
        ("io.kubernetes.cri.sandbox-name", name),
        ("io.kubernetes.cri.sandbox-namespace", "<b>"),
    ];
    let (bundle, socket) = node.node.bundle("k8s.io", "pod1", &annotations);
    mock::serve(&socket, recorded);
    let monitor = node.node.state_dir().join("m");
    std::fs::write(
        bundle.join("monitor_address"),
        format!("unix://{}", monitor.display()),
    )
    .unwrap();
    crate::support::serve_monitor(&monitor, Answer::Bytes(http_ok(GO)));
    let monitor = node.monitor();
    let page = monitor.scrape();
    page.check();
    let escaped = "a\\\\b\\\"c\\nd\u{7}é";
    assert_eq!(
        page.samples("kata_guest_load", &[("cri_name", escaped), ("item", "load1")])
            .len(),
        1
    );
    assert_eq!(page.samples("container_threads", &[("pod", escaped)]).len(), 1);
    let html = monitor.request("GET", "/sandboxes", &[("Accept", "text/html")]);
    assert!(html.text().contains("&lt;b&gt;") && !html.text().contains("<b>"));
}
