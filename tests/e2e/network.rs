//! The network part of `events`, which comes from the task's network namespace.

use serde_json::{Value, json};

use crate::support::{eventually, for_each_containerd};

fn interface<'a>(event: &'a Value, name: &str) -> Option<&'a Value> {
    event["data"]["interfaces"]
        .as_array()?
        .iter()
        .find(|interface| interface["name"] == name)
}

#[test]
fn a_container_with_a_network_of_its_own_shows_its_traffic_and_sockets() {
    for_each_containerd(|containerd| {
        // Five echo requests and five replies, all received on lo; one server that listens on TCP, one on UDP.
        let script = "ping -c 5 -i 0.1 127.0.0.1; nc -l -p 8080 & nc -u -l -p 8081 & sleep 1000";
        let task = containerd.run_container(&[], &["sh", "-c", script]);
        let ask = || {
            containerd
                .ask(&["events", "--stats", "--format", "json", &task.id])
                .json()
        };
        eventually("both servers listen", || {
            let data = &ask()["data"];
            let listening = |key: &str| data[key]["listen"].as_u64().unwrap_or(0);
            listening("tcp") + listening("tcp6") > 0 && listening("udp") + listening("udp6") > 0
        });
        let event = ask();
        let lo = interface(&event, "lo").unwrap_or_else(|| panic!("lo in {event}"));
        assert_eq!(lo["rx_packets"], json!(10), "{lo}");
        assert_eq!(lo["tx_packets"], json!(10));
        // 20 bytes of IP, 8 of ICMP and 56 of data each.
        assert_eq!(lo["rx_bytes"], json!(840));
        assert_eq!((&lo["rx_errors"], &lo["tx_dropped"]), (&json!(0), &json!(0)));
        for family in ["tcp", "udp"] {
            let data = &event["data"];
            let both = [data[family].clone(), data[format!("{family}6")].clone()];
            let listening: u64 = both.iter().filter_map(|sockets| sockets["listen"].as_u64()).sum();
            assert_eq!(listening, 1, "{family}: {both:?}");
        }
    });
}

#[test]
fn the_hosts_counters_are_not_those_of_a_container_in_its_network() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&["--net-host"], &["sleep", "1000"]);
        let event = containerd
            .ask(&["events", "--stats", "--format", "json", &task.id])
            .json();
        assert_eq!(event["data"]["interfaces"], json!([]));
    });
}
