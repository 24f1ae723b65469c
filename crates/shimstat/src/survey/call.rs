//! A call of another kind on a shim's lane.

use tokio::sync::oneshot;

use super::lane::{AskError, Lane};

impl Lane {
    /// Makes a call to the same sandbox by other means (its monitor's HTTP), when its turn comes and under the
    /// lane's rules: nothing else is asked of the sandbox meanwhile, nor after the limit until the call has ended,
    /// and after a call that was late the sandbox is left alone for as long as it took.
    ///
    /// The call is waited for to its end, in a task of its own, even where the asker gives up.
    pub async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, AskError> {
        let turn = self.turn().await?;
        let (asked, answered) = oneshot::channel();
        let lane = self.clone();
        let since = lane.begin(name);
        tokio::spawn(async move {
            let answer = call.await;
            lane.rest_after(name, since);
            lane.end();
            // Free before the answer is out: whoever hears it finds the lane free.
            drop(turn);
            let _ = asked.send(answer);
        });
        self.wait(answered).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::address::{Address, Endpoint, TaskVersion};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    fn lane(limit: Duration) -> Lane {
        let endpoint = Endpoint {
            address: Address::Path("/run/s".into()),
            version: TaskVersion::V2,
        };
        Lane::new(endpoint, limit)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn calls_take_turns() {
        block_on(async {
            let lane = lane(Duration::from_secs(5));
            let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let mut all = tokio::task::JoinSet::new();
            for number in 0..10 {
                let (lane, now, most) = (lane.clone(), now.clone(), most.clone());
                all.spawn(async move {
                    let call = async move {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        now.fetch_sub(1, Ordering::SeqCst);
                        number
                    };
                    assert_eq!(lane.call("GET /metrics", call).await.unwrap(), number);
                });
            }
            while let Some(done) = all.join_next().await {
                done.unwrap();
            }
            assert_eq!(most.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn a_late_call_is_not_repeated_and_the_sandbox_rests_after_it() {
        block_on(async {
            let lane = lane(Duration::from_millis(100));
            let calls = Arc::new(AtomicUsize::new(0));
            let ask = |takes: u64| {
                let calls = calls.clone();
                lane.call("GET /metrics", async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(takes)).await;
                })
            };
            let started = Instant::now();
            let late = ask(600).await.unwrap_err().to_string();
            assert!(started.elapsed() < Duration::from_millis(500));
            assert!(
                late.starts_with("the shim at /run/s has not answered GET /metrics for 1"),
                "{late}"
            );
            assert!(matches!(ask(0).await, Err(AskError::Unanswered { .. })));
            tokio::time::sleep(Duration::from_millis(600)).await;
            let resting = ask(0).await.unwrap_err();
            assert!(
                matches!(&resting, AskError::Resting { call: "GET /metrics", took, .. } if took.as_millis() >= 600),
                "{resting}"
            );
            tokio::time::sleep(Duration::from_millis(700)).await;
            ask(0).await.unwrap();
            assert_eq!(calls.load(Ordering::SeqCst), 2);
        });
    }
}
