//! What a sample of a gVisor container costs, both sides together: ten pods of two containers, asked on the control
//! sockets of a stand-in that reads the numbers of real processes.
//!
//! `cargo bench -p shimstat --bench gvisor`. The stand-in serves from threads of this process, so that its processor
//! time is all there is. A real sandbox's side is Go; it answers a call in 0.13 ms.

#![allow(clippy::restriction)] // A benchmark may panic.

#[path = "../tests/support/gvisor.rs"]
mod stand_in;

use std::time::{Duration, Instant};

use shimstat::node::gvisor::State;

use shimstat::shim::runsc::ControlConnection;
use shimstat::shim::{Connect, Connection, Sockets};
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
    let pods: Vec<Sandbox> = (0..10)
        .map(|pod| Sandbox::start(root.path(), &format!("pod{pod}"), &[(&format!("app{pod}"), IDLE)]))
        .collect();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            for keep in [true, false] {
                let mut connections: Vec<Option<ControlConnection<Connection>>> =
                    pods.iter().map(|_| None).collect();
                let (mut samples, started, before) = (0, Instant::now(), processor_time());
                for _ in 0..ROUNDS {
                    for (pod, connection) in pods.iter().zip(&mut connections) {
                        for id in pod.containers() {
                            sample(pod, id, connection).await;
                            if !keep {
                                *connection = None;
                            }
                            samples += 1;
                        }
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

/// A container's state and statistics.
async fn sample(pod: &Sandbox, id: &str, kept: &mut Option<ControlConnection<Connection>>) {
    let state = State::read(&pod.root, id, &pod.id).unwrap().unwrap();
    state.status().unwrap();
    let sandbox = state.sandbox.unwrap();
    let cpu = sandbox
        .cgroup
        .as_ref()
        .and_then(|cgroup| cgroup.cpu_usage().unwrap());
    if kept.is_none() {
        let address = sandbox.control_socket().unwrap();
        let stream = Sockets.connect(&address).await.unwrap();
        *kept = Some(ControlConnection::new(stream, address));
    }
    let connection = kept.as_mut().unwrap();
    connection.runtime_state(id).await.unwrap();
    std::hint::black_box(connection.event(id).await.unwrap().stats(None, cpu));
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
