//! Real containerds, real containers, and the real binary, for end-to-end tests.
//!
//! `tests/run.sh` says in `KATA_RUNTIME_TEST_CONTAINERDS` (directories joined by colons) which versions to test
//! with; without it, the machine's own is used. Starting and cleaning up is done by `tests/lib/containerd.sh`,
//! which the demo uses as well.

mod command;
mod containerd;
pub mod cri;
#[cfg(feature = "top")]
pub mod tmux;

pub use command::{Ran, Running, kata_runtime};
pub use containerd::{Containerd, Task, for_each_containerd, for_each_cri, fresh_id, is_cgroup_v2};

use std::time::{Duration, Instant};

/// Waits until the condition holds; fails the test if it does not within a minute.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "waited in vain for: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
