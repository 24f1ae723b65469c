//! The network part of `events`, which comes from the task's network namespace.

use std::{fs::File, net::UdpSocket, thread};

use serde_json::{Value, json};

use crate::support::{eventually, for_each_containerd};

fn interface<'a>(event: &'a Value, name: &str) -> Option<&'a Value> {
    event["data"]["interfaces"]
        .as_array()?
        .iter()
        .find(|interface| interface["name"] == name)
}

/// A UDP socket in the network namespace of another process; busybox has no server for UDP.
fn udp_server_in(pid: u32) -> UdpSocket {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the process is there");
    // A thread of its own, because only that goes over into the namespace.
    let bound = thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter it");
        UdpSocket::bind("127.0.0.1:8082").expect("the port is free")
    });
    bound.join().expect("a socket")
}

#[test]
fn a_container_with_a_network_of_its_own_shows_its_traffic() {
    for_each_containerd(|containerd| {
        // Five echo requests and five replies, all sent and received on lo.
        let task = containerd.run_container(&[], &["sh", "-c", "ping -c 5 -i 0.1 127.0.0.1; sleep 1000"]);
        let ask = || {
            containerd
                .ask(&["events", "--stats", "--format", "json", &task.id])
                .json()
        };
        let lo = || {
            interface(&ask(), "lo")
                .cloned()
                .expect("every network namespace has lo")
        };
        eventually("all is sent", || lo()["tx_packets"] == json!(10));
        // 20 bytes of IP, 8 of ICMP and 56 of data each.
        assert_eq!(
            lo(),
            json!({
                "name": "lo", "rx_bytes": 840, "rx_packets": 10, "rx_errors": 0, "rx_dropped": 0,
                "tx_bytes": 840, "tx_packets": 10, "tx_errors": 0, "tx_dropped": 0,
            })
        );
    });
}

#[test]
fn a_containers_sockets_are_counted_by_their_state() {
    for_each_containerd(|containerd| {
        // One server that waits and one that has a client.
        // (8081 is 1F91; tail keeps the connection open.)
        let script = "nc -l -p 8080 & tail -f /dev/null | nc -l -p 8081 &
            until grep -q ':1F91 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
            tail -f /dev/null | nc 127.0.0.1 8081 & sleep 1000";
        let task = containerd.run_container(&[], &["sh", "-c", script]);
        let udp = udp_server_in(task.pid());
        let count = |protocol: &str, state: &str| {
            let event = containerd
                .ask(&["events", "--stats", "--format", "json", &task.id])
                .json();
            let data = &event["data"];
            let count = |key: &str| data[key][state].as_u64().unwrap_or(0);
            count(protocol) + count(&format!("{protocol}6"))
        };
        // Both ends of the connection are in the container.
        eventually("the client is connected", || count("tcp", "established") == 2);
        assert_eq!(
            count("tcp", "listen"),
            1,
            "a server of busybox stops listening when it has a client"
        );
        assert_eq!(count("udp", "listen"), 1);
        drop(udp);
        assert_eq!(count("udp", "listen"), 0);
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
