//! A network between a container and this machine.

use std::process::Command;

use crate::support::Task;

/// Gives a container an interface on a wire to this machine; it goes with the container.
pub fn wire(task: &Task, host: &str, guest: &str) {
    let (name, pid) = (format!("krt{}", task.pid()), task.pid().to_string());
    let run = |line: &str| {
        let status = Command::new("sh")
            .args(["-c", line])
            .env("PATH", path())
            .status()
            .expect("sh starts");
        assert!(status.success(), "{line}");
    };
    run(&format!(
        "ip link add {name} type veth peer name eth0 netns {pid}"
    ));
    run(&format!(
        "ip addr add {host}/30 dev {name} && ip link set {name} up"
    ));
    run(&format!(
        "nsenter -t {pid} -n sh -c 'ip addr add {guest}/30 dev eth0 && ip link set eth0 up'"
    ));
}

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
