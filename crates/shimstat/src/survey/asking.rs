//! Asking about many containers at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask::Survey;
use super::error::AskError;
use super::question::Question;
use crate::node::Container;
use crate::shim::address::Address;

/// Questions about many containers that have been asked; the answers are on their way.
pub struct Asking<A> {
    containers: Vec<Arc<Container>>,
    asked: JoinSet<(usize, Result<A, AskError>)>,
    started: Instant,
}

impl Survey {
    /// Asks about many containers at once, each as soon as the iterator gives it. The shims are at work when this
    /// returns.
    pub async fn begin<Q: Question>(
        &self,
        containers: impl IntoIterator<Item = Arc<Container>>,
        question: Q,
    ) -> Asking<Q::Answer> {
        let mut asked = JoinSet::new();
        let mut all = Vec::new();
        for (index, container) in containers.into_iter().enumerate() {
            all.push(container.clone());
            let survey = self.clone();
            asked.spawn(async move { (index, survey.ask(&container, question).await) });
            // The first shims work while the last are being asked.
            tokio::task::yield_now().await;
        }
        Asking {
            containers: all,
            asked,
            started: Instant::now(),
        }
    }
}

impl<A: 'static> Asking<A> {
    /// The containers that were asked about.
    pub fn containers(&self) -> &[Arc<Container>] {
        &self.containers
    }

    /// The answers, in the order of the containers asked about, as far as they are there after a time for all of them
    /// together: shims that hang cost that time once, however many they are and however many containers share one.
    pub async fn answers(mut self, limit: Duration) -> Vec<Result<A, AskError>> {
        let mut answers: Vec<_> = self.containers.iter().map(|_| None).collect();
        let deadline = self.started + limit;
        // A task ends early only with the runtime.
        while let Ok(Some(Ok((index, answer)))) =
            tokio::time::timeout_at(deadline, self.asked.join_next()).await
        {
            if let Some(place) = answers.get_mut(index) {
                *place = Some(answer);
            }
        }
        let waited = self.started.elapsed();
        let missing = |container: &Container| match &container.source {
            Ok(source) => AskError::Unanswered {
                // What has no shim is never waited for.
                address: source.endpoint().map_or_else(
                    || Address::Path(container.bundle.path.clone()),
                    |endpoint| endpoint.address.clone(),
                ),
                call: "State",
                waited,
            },
            Err(why) => AskError::NoAddress(why.clone()),
        };
        answers
            .into_iter()
            .zip(&self.containers)
            .map(|(answer, container)| answer.unwrap_or_else(|| Err(missing(container))))
            .collect()
    }
}
