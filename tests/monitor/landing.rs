//! The landing page, in a real browser.

use std::process::Command;

use test_needs::needs;

use crate::mock::{self, Reply, http_chunked};
use crate::support::{Answer, GO, Monitor, Node};

/// The page as the browser has it after loading, and whatever scripts have made of it.
fn dom(monitor: &Monitor) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--dump-dom")
        .arg(format!("http://{}/", monitor.address()))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The texts of the cells of each row that has some.
fn rows(dom: &str) -> Vec<Vec<String>> {
    let between = |text: &str, from: char, to: char| {
        let mut depth = 0;
        text.chars()
            .filter(|character| {
                depth += i32::from(*character == from);
                let outside = depth == 0;
                depth -= i32::from(*character == to);
                outside
            })
            .collect::<String>()
    };
    dom.split("<tr>")
        .skip(1)
        .map(|row| {
            row.split("<td")
                .skip(1)
                .map(|cell| {
                    // What follows the table is not in its last cell.
                    let cell = cell.split("</td>").next().unwrap();
                    between(&format!("<{cell}"), '<', '>').trim().to_string()
                })
                .collect()
        })
        .collect()
}

/// A size as people read it, in bytes.
fn bytes(text: &str) -> f64 {
    let (number, factor) = [("KiB", 1024.0), ("MiB", 1048576.0), ("B", 1.0)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .unwrap();
    number.parse::<f64>().unwrap() * factor
}

#[test]
fn it_shows_pods_their_figures_and_what_fails() {
    needs!("chromium");
    let node = Node::new();
    node.pod("well");
    node.pod_with("sick", |_| Reply::Hang, Answer::Bytes(http_chunked(GO)));
    // A name that would be a script, were it not escaped.
    let name = "<script>document.title='run'</script>";
    node.node
        .pod("evil", &format!("shop/{name}"), |_| mock::running(0));
    let monitor = node.monitor_with(&["--timeout", "1s"], &[]);
    let before = dom(&monitor);
    assert!(before.contains("Nothing has been scraped yet"), "{before}");
    let page = monitor.scrape();
    let dom = dom(&monitor);
    assert!(
        dom.contains("<title>kata-runtime monitor</title>"),
        "no script has run: {dom}"
    );
    assert!(dom.contains("href=\"/metrics?sandbox=well\""), "{dom}");
    let rows = rows(&dom);
    let row = |first: &str| {
        rows.iter()
            .find(|row| row.first().is_some_and(|cell| cell == first))
    };
    let app = rows
        .iter()
        .skip_while(|row| row.first().is_none_or(|cell| cell != "shop/well"))
        .find(|row| row.get(1).is_some_and(|cell| cell == "app"));
    let app = app.unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!(app.len(), 6, "{app:?}");
    let served = page.value("container_memory_working_set_bytes", &[("id", "well-app")]);
    let served: f64 = served.parse().unwrap();
    let shown = bytes(&app[3]);
    assert!((shown / served - 1.0).abs() < 0.01, "{shown} {served}");
    let sick = row("sandbox shop/sick").or_else(|| row("container shop/sick"));
    let sick = sick.unwrap_or_else(|| panic!("{rows:?}"));
    assert!(
        ["timeout", "guest_hung", "resting"].contains(&sick[1].as_str()),
        "{sick:?}"
    );
    assert!(dom.contains("&lt;script&gt;document.title"), "{dom}");
}
