//! Asking many shims at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::bound::Bound;
use super::lane::{AskError, Lane, Sample};
use crate::node::Container;
use crate::shim::address::{Address, Endpoint};
use crate::shim::task::TaskState;

/// Asks shims, many at once, and no shim twice at a time: a pod's containers share their sandbox's shim, and
/// so its lane.
#[derive(Clone)]
pub struct Survey {
    limit: Duration,
    bound: Bound,
    lanes: Arc<Mutex<HashMap<Address, Lane>>>,
}

impl Survey {
    /// A survey that waits `limit` for each answer and asks so many shims at once.
    pub fn new(limit: Duration, at_once: usize) -> Self {
        Self {
            limit,
            bound: Bound::new(at_once),
            lanes: Arc::default(),
        }
    }

    /// The way to a shim. It is the same for as long as something is in flight on it, whoever asks.
    pub fn lane(&self, endpoint: &Endpoint) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes
            .entry(endpoint.address.clone())
            .or_insert_with(|| Lane::new(endpoint.clone(), self.limit))
            .clone()
    }

    /// The states of tasks, in the order of the containers given.
    pub async fn states(&self, containers: &[Arc<Container>]) -> Vec<Result<TaskState, AskError>> {
        self.all(containers, |lane, id| async move { lane.state(&id).await })
            .await
    }

    /// The statistics of running tasks, in the order of the containers given.
    pub async fn samples(&self, containers: &[Arc<Container>]) -> Vec<Result<Sample, AskError>> {
        self.all(containers, |lane, id| async move { lane.sample(&id).await })
            .await
    }

    async fn all<T, A>(
        &self,
        containers: &[Arc<Container>],
        ask: impl Fn(Lane, String) -> A,
    ) -> Vec<Result<T, AskError>>
    where
        T: Send + 'static,
        A: Future<Output = Result<T, AskError>> + Send + 'static,
    {
        let mut answers: Vec<_> = containers.iter().map(|_| None).collect();
        let mut asking = JoinSet::new();
        for (index, container) in containers.iter().enumerate() {
            match &container.endpoint {
                Ok(endpoint) => {
                    let answer = ask(self.lane(endpoint), container.bundle.id.clone());
                    let bound = self.bound.clone();
                    asking.spawn(async move { (index, bound.run(answer).await) });
                }
                Err(why) => answers[index] = Some(Err(AskError::NoAddress(why.clone()))),
            }
        }
        while let Some(answer) = asking.join_next().await {
            // A task ends early only with the runtime.
            if let Ok((index, answer)) = answer {
                answers[index] = Some(answer);
            }
        }
        let missing = || Err(AskError::NoAddress("the program is ending".to_string()));
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(missing))
            .collect()
    }

    /// Forgets what is idle: connections are closed, and only lanes on which a call is in flight, or that rest
    /// from one, are kept for the next time.
    pub fn rest(&self) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, lane| !lane.is_idle());
        lanes.values().for_each(Lane::hang_up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Bundle, PodNames, Role};
    use crate::shim::address::TaskVersion;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Instant;

    fn container(id: &str, socket: &Path) -> Arc<Container> {
        let endpoint = Endpoint {
            address: Address::Path(socket.into()),
            version: TaskVersion::V2,
        };
        Arc::new(Container {
            bundle: Bundle {
                state_dir: "/run/containerd".into(),
                namespace: "default".into(),
                id: id.into(),
                path: "/run/x".into(),
            },
            endpoint: Ok(endpoint),
            role: Role::Plain,
            names: PodNames::default(),
        })
    }

    #[test]
    fn hung_shims_cost_one_deadline_and_their_lanes_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let hung = dir.path().join("hung");
        // Accepts into its backlog and never answers.
        let _listener = UnixListener::bind(&hung).unwrap();
        let mut containers: Vec<_> = (0..8).map(|n| container(&format!("hung{n}"), &hung)).collect();
        containers.push(container("gone", &dir.path().join("gone")));
        let mut broken = (*containers[8]).clone();
        broken.endpoint = Err("no address".into());
        containers.push(Arc::new(broken));

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let survey = Survey::new(Duration::from_millis(300), 2);
            let started = Instant::now();
            let answers = survey.states(&containers).await;
            assert!(
                started.elapsed() < Duration::from_millis(900),
                "{:?}",
                started.elapsed()
            );
            for answer in &answers[..8] {
                assert!(matches!(answer, Err(AskError::Unanswered { .. })), "{answer:?}");
            }
            assert!(
                matches!(&answers[8], Err(AskError::NotRunning(_))),
                "{:?}",
                answers[8]
            );
            assert!(
                matches!(&answers[9], Err(AskError::NoAddress(_))),
                "{:?}",
                answers[9]
            );

            // The call is still in flight: the next survey does not wait for it, nor send another.
            survey.rest();
            let started = Instant::now();
            let again = survey.states(&containers[..1]).await;
            assert!(
                started.elapsed() < Duration::from_millis(100),
                "{:?}",
                started.elapsed()
            );
            assert!(
                matches!(&again[0], Err(AskError::Unanswered { waited, .. }) if waited.as_millis() >= 300)
            );
        });
    }
}
