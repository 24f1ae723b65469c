//! What the guest of the selected pod tells. It is asked now and then, and in the background.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shimstat::node::Container;
use shimstat::survey::Survey;
use tokio::sync::mpsc;

use super::tree::RowKey;
use crate::guest_side::GuestSide;

/// How old an answer may be. What does not change is asked once (see [`GuestFacts`](shimstat::survey::GuestFacts)).
const FRESH: Duration = Duration::from_secs(10);

type GuestAnswer = (RowKey, Option<GuestSide>);

/// Asks guests, at most one at a time, and keeps what they have told.
pub struct Guests {
    survey: Survey,
    known: HashMap<RowKey, (Instant, Option<Arc<GuestSide>>)>,
    is_asking: bool,
    sender: mpsc::UnboundedSender<GuestAnswer>,
    answers: mpsc::UnboundedReceiver<GuestAnswer>,
}

impl Guests {
    pub fn new(survey: Survey) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            survey,
            known: HashMap::new(),
            is_asking: false,
            sender,
            answers,
        }
    }

    /// Asks the guest of a pod with these containers, unless it has told something lately.
    pub fn want<'a>(&mut self, key: &RowKey, containers: impl Iterator<Item = &'a Arc<Container>>) {
        let is_fresh = self
            .known
            .get(key)
            .is_some_and(|(asked, _)| asked.elapsed() < FRESH);
        if is_fresh || self.is_asking {
            return;
        }
        let containers: Vec<_> = containers.cloned().collect();
        let Some(pod) = shimstat::node::pods(&containers).into_iter().next() else {
            return;
        };
        self.is_asking = true;
        let (survey, sender, key) = (self.survey.clone(), self.sender.clone(), key.clone());
        tokio::spawn(async move {
            let guest = GuestSide::ask(&survey, &pod).await;
            // The view may have ended.
            let _ = sender.send((key, guest.ok()));
        });
    }

    /// Waits for the next answer, and keeps it.
    pub async fn next(&mut self) {
        // There is a sender for as long as this lives.
        if let Some((key, guest)) = self.answers.recv().await {
            self.is_asking = false;
            self.known.insert(key, (Instant::now(), guest.map(Arc::new)));
        }
    }

    /// What the guest of a pod has told.
    pub fn of(&self, key: &RowKey) -> Option<Arc<GuestSide>> {
        self.known.get(key)?.1.clone()
    }

    /// Forgets pods that are no longer there.
    pub fn keep(&mut self, here: &HashSet<&RowKey>) {
        self.known.retain(|key, _| here.contains(key));
    }
}
