//! A limit on how many shims are asked at once, on which those that do not answer do not count.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// An answer takes a few milliseconds. What is not there after this is hung, or the machine is so busy that
/// some more in flight make no difference.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs futures, at most so many at once. One that takes long is left to itself and makes room for the next: a
/// hundred hung shims do not hold up the others for a deadline each.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    usual: Arc<Semaphore>,
    /// Those that take long included.
    all: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    /// A limit of at least one.
    pub fn new(at_once: usize) -> Self {
        Self {
            usual: semaphore(at_once),
            all: semaphore(usize::MAX),
        }
    }

    /// With a limit on all, at least one: those that take long included, since they need descriptors as well.
    pub fn with_at_most(mut self, all: usize) -> Self {
        self.all = semaphore(all);
        self
    }

    /// Runs a future when there is room for it. It comes pinned, since each move would leave room for it behind.
    pub async fn run<T>(&self, mut future: impl Future<Output = T> + Unpin) -> T {
        // The semaphore is never closed, so an error cannot be; it would cost the limit, not the answer.
        let _place = self.all.acquire().await.ok();
        let room = self.usual.acquire().await.ok();
        match tokio::time::timeout(PATIENCE, &mut future).await {
            Ok(value) => value,
            Err(_elapsed) => {
                drop(room);
                future.await
            }
        }
    }
}

fn semaphore(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_run_at_once_except_hung_ones() {
        let limit = ConcurrencyLimit::new(3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let started = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for number in 0..40 {
            let (limit, now, most) = (limit.clone(), now.clone(), most.clone());
            all.spawn(async move {
                limit
                    .run(Box::pin(async {
                        if number % 10 == 0 {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        } else {
                            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(1)).await;
                            now.fetch_sub(1, Ordering::SeqCst);
                        }
                    }))
                    .await;
            });
        }
        while all.join_next().await.is_some() {}
        let most = most.load(Ordering::SeqCst);
        assert!(most == 2 || most == 3, "{most}");
        // Four that take a second each, with a limit of three: not two seconds.
        assert!(
            started.elapsed() < Duration::from_millis(1900),
            "{:?}",
            started.elapsed()
        );
    }
}
