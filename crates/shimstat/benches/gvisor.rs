//! What a sample of a gVisor container costs, both sides together: ten pods of two containers, asked on the control
//! sockets of a stand-in that reads the numbers of real processes.
//!
//! `cargo bench -p shimstat --bench gvisor`. The stand-in serves from threads of this process, so that its processor
//! time is all there is. A real sandbox's side is Go; it answers a call in 0.13 ms.

#![allow(clippy::restriction)] // A benchmark may panic.

#[path = "../tests/support/gvisor.rs"]
mod stand_in;

use std::path::Path;
use std::time::{Duration, Instant};

use shimstat::node::{Bundle, Container, Description, Layout, Role, Source};
use shimstat::shim::address::Endpoint;
use shimstat::survey::{Network, Statistics, Survey, Via};
use stand_in::{IDLE, Sandbox};

const ROUNDS: usize = 200;

/// The most that a sample may cost.
const LIMIT: Duration = Duration::from_millis(1);

fn main() {
    // `cargo test --benches` only asks whether it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("k8s.io");
    std::fs::create_dir(&directory).unwrap();
    let pods: Vec<Sandbox> = (0..10)
        .map(|pod| Sandbox::start(&directory, &format!("pod{pod}"), &[(&format!("app{pod}"), IDLE)]))
        .collect();
    let containers: Vec<Container> = pods
        .iter()
        .flat_map(|pod| {
            pod.containers()
                .into_iter()
                .map(|id| container(root.path(), pod, id))
                .collect::<Vec<_>>()
        })
        .collect();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            for keep in [true, false] {
                let survey = Survey::new(Duration::from_secs(3), 64);
                let survey = if keep {
                    survey.keeping_connections()
                } else {
                    survey
                };
                let (mut samples, started, before) = (0, Instant::now(), processor_time());
                for _ in 0..ROUNDS {
                    for container in &containers {
                        let question = Statistics {
                            network: Network::Interfaces,
                            via: Via::Both,
                        };
                        std::hint::black_box(survey.ask(container, question).await.unwrap());
                        samples += 1;
                    }
                }
                let each = |time: Duration| time / samples;
                let cpu = each(processor_time() - before);
                println!(
                    "{}: {cpu:?} of processor time and {:?} a sample, both sides; at most {LIMIT:?}: {}",
                    if keep { "connection kept" } else { "new connection" },
                    each(started.elapsed()),
                    if cpu <= LIMIT { "yes" } else { "NO" }
                );
            }
        });
}

/// A container of a pod, as containerd and gVisor's shim note it.
fn container(directory: &Path, pod: &Sandbox, id: &str) -> Container {
    let path = directory.join("bundles").join(id);
    std::fs::create_dir_all(&path).unwrap();
    let shim = "/usr/bin/containerd-shim-runsc-v1";
    std::fs::write(path.join("shim-binary-path"), shim).unwrap();
    let options = serde_json::json!({"options": {"root": directory}});
    std::fs::write(path.join("state.json"), options.to_string()).unwrap();
    let bundle = Bundle {
        state_dir: directory.into(),
        namespace: "k8s.io".into(),
        id: id.into(),
        path,
        layout: Layout::Task,
    };
    let role = match id == pod.id {
        true => Role::Sandbox,
        false => Role::InSandbox(pod.id.clone()),
    };
    let description = Description {
        role,
        ..Description::default()
    };
    // Nobody listens there: the sandbox answers.
    let shim = Endpoint::from_address_file("unix:///run/no-shim").unwrap();
    Container::new(bundle, Ok(Source::Task(shim)), description)
}

/// That of this process and all its threads.
fn processor_time() -> Duration {
    // SAFETY: a rusage is plain numbers, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    [usage.ru_utime, usage.ru_stime]
        .map(|time| Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64))
        .iter()
        .sum()
}
