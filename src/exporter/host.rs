//! Reading what the kernel says of containers on this host. What may take long is read off the thread that others wait
//! for, and with a deadline: a filesystem that hangs costs its own container's numbers and no other's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shimstat::node::cgroup::{CgroupMounts, CountBounds};
use shimstat::node::{Container, HostContainer, HostReadings};
use tokio::sync::Semaphore;

/// Threads that read. Reading hardly ever waits, so more would not be faster.
const THREADS: usize = 4;

/// A reading takes less than a millisecond. One that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(1);

/// Descriptors of one container that are looked at one by one. The default bounds are for whoever asks once.
const BOUNDS: CountBounds = CountBounds {
    processes: 200,
    descriptors: 2_000,
};

/// Reads containers' numbers from this host. Clones share their threads.
#[derive(Clone)]
pub struct HostReader {
    turns: Arc<Semaphore>,
    /// Threads whose reading was given up, and that have not come back.
    hung: Arc<AtomicUsize>,
}

impl Default for HostReader {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(THREADS)),
            hung: Arc::default(),
        }
    }
}

impl HostReader {
    /// The numbers of a container whose first process has this pid. `None` where it does not run on this host, its cgroup
    /// cannot be seen from here, or reading takes too long.
    pub async fn read(&self, container: &Arc<Container>, pid: u32) -> Option<HostReadings> {
        let known = container.known_host_container(pid);
        if let Some(quick) = known.and_then(HostContainer::read_quickly) {
            return Some(quick);
        }
        if pid == 0 || self.hung.load(Ordering::Relaxed) >= THREADS {
            return None;
        }
        let turn = tokio::time::timeout(LIMIT, self.turns.clone().acquire_owned());
        let turn = turn.await.ok()?.ok()?;
        let container = container.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let host = container.host_container(pid, CgroupMounts::host().ok()?).ok()??;
            Some(host.read(BOUNDS))
        });
        self.wait(reading).await
    }

    async fn wait(&self, mut reading: tokio::task::JoinHandle<Option<HostReadings>>) -> Option<HostReadings> {
        if let Ok(read) = tokio::time::timeout(LIMIT, &mut reading).await {
            return read.ok()?;
        }
        let hung = self.hung.clone();
        hung.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _ = reading.await;
            hung.fetch_sub(1, Ordering::Relaxed);
        });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readings_that_hang_are_given_up_and_counted_until_they_come_back() {
        let reader = HostReader::default();
        let mut held = Vec::new();
        for number in 1..=THREADS {
            let (come_back, hangs) = tokio::sync::oneshot::channel::<()>();
            let reading = tokio::spawn(async move {
                let _ = hangs.await;
                None
            });
            let started = tokio::time::Instant::now();
            assert_eq!(reader.wait(reading).await, None);
            assert_eq!(started.elapsed(), LIMIT);
            assert_eq!(reader.hung.load(Ordering::Relaxed), number);
            held.push(come_back);
        }
        drop(held);
        tokio::time::sleep(LIMIT).await;
        assert_eq!(reader.hung.load(Ordering::Relaxed), 0);
    }
}
