//! Asking many shims at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::bound::Bound;
use super::lane::{AskError, Lane, Sample};
use crate::node::{Container, Task};
use crate::shim::address::{Address, Endpoint};
use crate::shim::task::TaskState;

/// A task that a survey can ask about.
pub trait Subject {
    fn id(&self) -> &str;
    /// Where its shim listens, or why that cannot be told.
    fn endpoint(&self) -> &Result<Endpoint, String>;
}

impl Subject for Task {
    fn id(&self) -> &str {
        &self.bundle.id
    }

    fn endpoint(&self) -> &Result<Endpoint, String> {
        &self.endpoint
    }
}

impl Subject for Container {
    fn id(&self) -> &str {
        &self.bundle.id
    }

    fn endpoint(&self) -> &Result<Endpoint, String> {
        &self.endpoint
    }
}

impl Subject for &Arc<Container> {
    fn id(&self) -> &str {
        (***self).id()
    }

    fn endpoint(&self) -> &Result<Endpoint, String> {
        (***self).endpoint()
    }
}

/// Asks shims, many at once, and no shim twice at a time: a pod's containers share their sandbox's shim, and
/// so its lane.
#[derive(Clone)]
pub struct Survey {
    limit: Duration,
    bound: Bound,
    count_sockets: bool,
    lanes: Arc<Mutex<HashMap<Address, Lane>>>,
}

impl Survey {
    /// A survey that waits `limit` for each answer and asks so many shims at once.
    pub fn new(limit: Duration, at_once: usize) -> Self {
        Self {
            limit,
            bound: Bound::new(at_once),
            count_sockets: false,
            lanes: Arc::default(),
        }
    }

    /// Has samples count each task's sockets as well (see [`Lane::counting_sockets`]).
    pub fn counting_sockets(self) -> Self {
        Self {
            count_sockets: true,
            ..self
        }
    }

    /// The way to a shim. It is the same for as long as something is in flight on it, whoever asks.
    pub fn lane(&self, endpoint: &Endpoint) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes
            .entry(endpoint.address.clone())
            .or_insert_with(|| {
                let lane = Lane::new(endpoint.clone(), self.limit);
                if self.count_sockets {
                    lane.counting_sockets()
                } else {
                    lane
                }
            })
            .clone()
    }

    /// The statistics of one running task.
    pub async fn sample(&self, endpoint: &Endpoint, id: &str) -> Result<Sample, AskError> {
        self.bound.run(self.lane(endpoint).sample(id)).await
    }

    /// The statistics of one task, even where it has stopped (see [`Lane::last_sample`]).
    pub async fn last_sample(&self, endpoint: &Endpoint, id: &str) -> Result<Sample, AskError> {
        self.bound.run(self.lane(endpoint).last_sample(id)).await
    }

    /// The states of tasks, in the order of the containers given.
    pub async fn states(&self, containers: &[Arc<Container>]) -> Vec<Result<TaskState, AskError>> {
        let ask = |lane: Lane, id: String| async move { lane.state(&id).await };
        let answers = self.all(containers, None, ask, drop).await;
        answers.into_iter().map(|((), answer)| answer).collect()
    }

    /// The statistics of running tasks, in the order of the containers given.
    pub async fn samples(&self, containers: &[Arc<Container>]) -> Vec<Result<Sample, AskError>> {
        let ask = |lane: Lane, id: String| async move { lane.sample(&id).await };
        let answers = self.all(containers, None, ask, drop).await;
        answers.into_iter().map(|((), answer)| answer).collect()
    }

    /// The states of tasks, as far as they are known after a time for all of them together: shims that hang cost
    /// that time once, however many they are and however many tasks share one. A shim is asked as soon as its task
    /// comes out of the iterator; what is wanted `meanwhile` of each task is done once all are asked, so that the
    /// shims are at work while it is.
    pub async fn states_within<S: Subject, R>(
        &self,
        total: Duration,
        tasks: impl IntoIterator<Item = S>,
        meanwhile: impl FnMut(S) -> R,
    ) -> Vec<(R, Result<TaskState, AskError>)> {
        let ask = |lane: Lane, id: String| async move {
            let state = lane.state(&id).await;
            // Now, while others are still being asked, and not all together in the end: a shim that is hung up on
            // has work to do, too.
            lane.hang_up();
            state
        };
        self.all(tasks, Some(total), ask, meanwhile).await
    }

    /// Closes the connection to a shim where nothing is in flight.
    pub fn hang_up(&self, endpoint: &Endpoint) {
        self.lane(endpoint).hang_up();
    }

    async fn all<S, R, T, A>(
        &self,
        subjects: impl IntoIterator<Item = S>,
        total: Option<Duration>,
        ask: impl Fn(Lane, String) -> A,
        mut meanwhile: impl FnMut(S) -> R,
    ) -> Vec<(R, Result<T, AskError>)>
    where
        S: Subject,
        T: Send + 'static,
        A: Future<Output = Result<T, AskError>> + Send + 'static,
    {
        let mut asked = Vec::new();
        let mut asking = JoinSet::new();
        for (index, subject) in subjects.into_iter().enumerate() {
            if let Ok(endpoint) = subject.endpoint() {
                let answer = ask(self.lane(endpoint), subject.id().to_string());
                let bound = self.bound.clone();
                asking.spawn(async move { (index, bound.run(answer).await) });
            }
            asked.push(subject);
            tokio::task::yield_now().await;
        }
        let mut answers = Vec::with_capacity(asked.len());
        for subject in asked {
            let endpoint = subject.endpoint().clone();
            answers.push((meanwhile(subject), endpoint, None));
            tokio::task::yield_now().await;
        }
        let started = Instant::now();
        let deadline = total.and_then(|total| started.checked_add(total));
        loop {
            let answer = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), asking.join_next()).await,
                None => Ok(asking.join_next().await),
            };
            match answer {
                // A task ends early only with the runtime.
                Ok(Some(answer)) => {
                    if let Ok((index, answer)) = answer
                        && let Some((_, _, place)) = answers.get_mut(index)
                    {
                        *place = Some(answer);
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        answers
            .into_iter()
            .map(|(result, endpoint, answer)| {
                let answer = answer.unwrap_or_else(|| Err(unanswered(endpoint, started.elapsed())));
                (result, answer)
            })
            .collect()
    }

    /// Forgets the ways to shims that are no longer wanted, but for those on which something is in flight.
    pub fn keep(&self, wanted: impl Fn(&Address) -> bool) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|address, lane| wanted(address) || !lane.is_idle());
    }

    /// Forgets what is idle: connections are closed, and only lanes on which a call is in flight, or that rest
    /// from one, are kept for the next time.
    pub fn rest(&self) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, lane| !lane.is_idle());
        lanes.values().for_each(Lane::hang_up);
    }
}

/// What is said of a task that could not be asked, or whose answer was not waited for any longer.
fn unanswered(endpoint: Result<Endpoint, String>, waited: Duration) -> AskError {
    match endpoint {
        Ok(endpoint) => AskError::Unanswered {
            address: endpoint.address,
            call: "State",
            waited,
        },
        Err(why) => AskError::NoAddress(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Bundle, CpuSpec, PodNames, Role};
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
            cpu: CpuSpec::default(),
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

    #[test]
    fn all_are_asked_before_anything_else_is_done_and_answers_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let containers: Vec<_> = (0..3)
            .map(|n| {
                let mut container = (*container(&format!("c{n}"), &dir.path().join("gone"))).clone();
                if n == 1 {
                    container.endpoint = Err("no address".into());
                }
                container
            })
            .collect();
        let log = std::cell::RefCell::new(Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let survey = Survey::new(Duration::from_secs(5), 2);
        let asked = containers
            .into_iter()
            .inspect(|container| log.borrow_mut().push(format!("ask {}", container.bundle.id)));
        let answers = runtime.block_on(survey.states_within(Duration::from_secs(5), asked, |container| {
            log.borrow_mut().push(format!("read {}", container.bundle.id));
            container.bundle.id
        }));
        assert_eq!(
            log.into_inner(),
            ["ask c0", "ask c1", "ask c2", "read c0", "read c1", "read c2"]
        );
        let ids: Vec<_> = answers.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["c0", "c1", "c2"]);
        assert!(matches!(&answers[0].1, Err(AskError::NotRunning(_))));
        assert!(matches!(&answers[1].1, Err(AskError::NoAddress(_))));
        assert!(matches!(&answers[2].1, Err(AskError::NotRunning(_))));
    }
}
