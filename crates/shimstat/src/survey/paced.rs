//! Answers that are given again for a while, because asking anew would cost more than they are worth.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::AskError;
use super::question::{Calls, Reply};
use crate::node::Container;
use crate::node::pace::{Answerer, Pace};

/// The last answers of those who are not to be asked often, by the path of the container's bundle. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Paced {
    pub pace: Pace,
    kept: Arc<Mutex<HashMap<PathBuf, Kept>>>,
}

struct Kept {
    asked: Instant,
    least: Duration,
    calls: Calls,
    answer: Result<Reply, Arc<AskError>>,
}

impl Paced {
    /// The last answer about a container, where it is too early to ask again.
    pub fn recall(&self, container: &Container, calls: Calls) -> Option<Result<Reply, AskError>> {
        let kept = self.kept();
        let kept = kept.get(&container.bundle.path)?;
        let rest = kept.least.saturating_sub(kept.asked.elapsed());
        let fits = !calls.wants_statistics() || kept.calls == calls;
        if rest.is_zero() || !fits {
            return None;
        }
        Some(
            kept.answer
                .clone()
                .map_err(|error| AskError::TooSoon { error, rest }),
        )
    }

    /// Keeps an answer for as long as the answerer's cost asks for.
    pub fn keep(
        &self,
        container: &Container,
        answerer: Answerer,
        calls: Calls,
        asked: Instant,
        answer: Result<Reply, AskError>,
    ) -> Result<Reply, AskError> {
        let least = self.pace.interval(answerer, Duration::ZERO);
        // A state alone is no answer to the next question, and a lane remembers who was late.
        let is_final = matches!(&answer, Err(error) if !matches!(error, AskError::Shim(_)));
        if least.is_zero() || !calls.wants_statistics() || is_final {
            return answer;
        }
        let (answer, kept) = match answer {
            Ok(reply) => (Ok(reply.clone()), Ok(reply)),
            Err(error) => {
                let error = Arc::new(error);
                let again = AskError::TooSoon {
                    error: error.clone(),
                    rest: least,
                };
                (Err(again), Err(error))
            }
        };
        let kept = Kept {
            asked,
            least,
            calls,
            answer: kept,
        };
        self.kept().insert(container.bundle.path.clone(), kept);
        answer
    }

    /// Forgets what would not be given again.
    pub fn forget_old(&self) {
        self.kept().retain(|_, kept| kept.asked.elapsed() < kept.least);
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<PathBuf, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
