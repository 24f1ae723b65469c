//! The files of the simulated containers. They are the same in every run.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use shimstat::node::{Bundle, Container, Description, Layout, Pod, Role, Source};
use shimstat::shim::address::{Address, Endpoint, Protocol, TaskVersion};
use tempfile::TempDir;

/// The most sandboxes of a run, and containers in each beside the sandbox itself.
pub const SANDBOXES: usize = 6;
pub const CONTAINERS: usize = 3;

static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    for index in 0..SANDBOXES {
        for number in 0..=CONTAINERS {
            let runc = place.path().join(id(false, index, number));
            fs::create_dir(&runc).unwrap();
            fs::write(runc.join("shim-binary-path"), "/usr/bin/containerd-shim-runc-v2").unwrap();
        }
        let kata = place.path().join(id(true, index, 0));
        fs::create_dir(&kata).unwrap();
        fs::write(
            kata.join("monitor_address"),
            format!("unix://{}", monitor_path(index)),
        )
        .unwrap();
    }
    place
});

/// The id of a container; number 0 is the sandbox.
pub fn id(is_kata: bool, sandbox: usize, number: usize) -> String {
    let kind = if is_kata { "kata" } else { "runc" };
    match number {
        0 => format!("{kind}{sandbox}"),
        number => format!("{kind}{sandbox}c{number}"),
    }
}

pub fn shim_path(sandbox: usize) -> PathBuf {
    format!("/simulated/{sandbox}/shim.sock").into()
}

pub fn monitor_path(sandbox: usize) -> String {
    format!("/simulated/{sandbox}/monitor.sock")
}

/// A sandbox with its containers.
pub fn pod(is_kata: bool, sandbox: usize, containers: usize) -> Pod {
    let containers: Vec<_> = (0..=containers)
        .map(|number| Arc::new(container(is_kata, sandbox, number)))
        .collect();
    let mut pod = shimstat::node::pods(&containers).remove(0);
    if is_kata {
        pod.monitor = vec![Address::Path(monitor_path(sandbox).into())];
    }
    pod
}

fn container(is_kata: bool, sandbox: usize, number: usize) -> Container {
    let endpoint = Endpoint {
        address: Address::Path(shim_path(sandbox)),
        protocol: Protocol::Ttrpc,
        version: TaskVersion::V2,
    };
    let id = id(is_kata, sandbox, number);
    let bundle = Bundle {
        state_dir: PLACE.path().into(),
        namespace: "k8s.io".into(),
        path: PLACE.path().join(&id),
        id,
        layout: Layout::Task,
    };
    let description = Description {
        role: match number {
            0 => Role::Sandbox,
            _ => Role::InSandbox(self::id(is_kata, sandbox, 0)),
        },
        ..Description::default()
    };
    Container::new(bundle, Ok(Source::Task(endpoint)), description)
}
