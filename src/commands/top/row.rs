//! One container in the view: what its shim said last, and what that means.

use std::collections::VecDeque;
use std::sync::Arc;

use go_duration as duration;
use shimstat::node::Container;
use shimstat::rates::Rates;
use shimstat::survey::{AskError, NotRunning, Sample};

use crate::show::field::Facts;
use crate::show::fields;
use crate::show::name::short_id;

/// How many past values are kept: ten minutes at an interval of 2 s.
pub const HISTORY: usize = 300;

/// Past values, the newest last. `None`: there was none at that tick.
#[derive(Debug, Clone, Default)]
pub struct History(VecDeque<Option<f32>>);

impl History {
    pub fn push(&mut self, value: Option<f64>) {
        // Exact enough for a graph, at half the size.
        let value = value.map(|value| value as f32);
        if self.0.is_empty() {
            // At once: growing by doubling takes more in the end, and looks like a leak until it is full.
            self.0.reserve_exact(HISTORY);
        } else if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The newest values, at most `count`.
    pub fn last(&self, count: usize) -> impl Iterator<Item = Option<f64>> {
        let newest = self.0.iter().skip(self.0.len().saturating_sub(count));
        newest.map(|value| value.map(f64::from))
    }
}

/// The state of a container, according to its shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Its shim has not answered yet.
    Waiting,
    /// There are statistics. The word is its status, unless that is `running` (`paused`, `created`).
    Answers(Option<&'static str>),
    /// Its shim does not answer, or answered late and is left alone for a while. Says which.
    Hung(String),
    /// It is running, and its shim has no statistics of it.
    Unmeasured,
    /// It is not running. Says why.
    Stopped(String),
    /// Its shim answered with an error.
    Failed(String),
}

/// One container.
#[derive(Debug, Clone)]
pub struct TopRow {
    pub container: Arc<Container>,
    pub health: Health,
    /// Its last sample, kept while it does not answer: the next rates are since then.
    pub sample: Option<Sample>,
    pub rates: Rates,
    /// Per cent of one processor.
    pub cpu: History,
}

impl TopRow {
    pub fn new(container: Arc<Container>) -> Self {
        Self {
            container,
            health: Health::Waiting,
            sample: None,
            rates: Rates::default(),
            cpu: History::default(),
        }
    }

    /// Takes its shim's answer.
    pub fn take(&mut self, answer: Result<Sample, AskError>) {
        match answer {
            Ok(sample) => {
                // The same sample again, where it is too early to ask for another, leaves the rates as they were.
                let is_new = self
                    .sample
                    .as_ref()
                    .is_none_or(|before| before.taken != sample.taken);
                if is_new {
                    let since = self.sample.as_ref().map(|before| Rates::between(before, &sample));
                    self.rates = since.unwrap_or_default();
                }
                let word = sample.state.status.as_str();
                self.health = Health::Answers((word != "running").then_some(word));
                self.sample = Some(sample);
            }
            Err(error) => {
                self.rates = Rates::default();
                if let AskError::NoStatistics(_) = error {
                    self.sample = None;
                }
                self.health = health(&error);
            }
        }
        self.cpu.push(fields::CPU.of(&self.facts()));
    }

    /// What the columns can show; no statistics unless it answers.
    pub fn facts(&self) -> Facts<'_> {
        let answers = matches!(self.health, Health::Answers(_));
        Facts {
            sample: self.sample.as_ref().filter(|_| answers),
            rates: Some(&self.rates).filter(|_| answers),
            ..Facts::of(&self.container)
        }
    }

    /// The same, unless it is known not to run.
    pub fn facts_if_running(&self) -> Option<Facts<'_>> {
        (!matches!(self.health, Health::Stopped(_) | Health::Unmeasured)).then(|| self.facts())
    }

    /// The container's name in its pod. Untrusted text.
    pub fn name_in_pod(&self) -> &str {
        let names = self.container.names();
        let name = names.container.as_deref().or(names.own.as_deref());
        name.unwrap_or(short_id(self.container.id()))
    }

    /// Whether a filter matches: part of a name, of the id or of containerd's namespace.
    pub fn matches(&self, filter: &str) -> bool {
        let (bundle, names) = (&self.container.bundle, self.container.names());
        let pod = names.pod().unwrap_or_default();
        let wanted = filter.to_lowercase();
        [&bundle.id, &bundle.namespace, &pod]
            .into_iter()
            .chain(&names.container)
            .chain(&names.own)
            .any(|text| text.to_lowercase().contains(&wanted))
    }
}

/// The state of a container without statistics. Untrusted text.
fn health(error: &AskError) -> Health {
    match error.latest() {
        AskError::NotRunning(NotRunning::Stopped(state)) => Health::Stopped(match state.exit_status {
            Some(status) => format!("stopped, exit status {status}"),
            None => "stopped".to_string(),
        }),
        AskError::NotRunning(NotRunning::Gone(why)) => Health::Stopped(format!("shim gone: {why}")),
        AskError::NotRunning(NotRunning::Unknown(_)) => Health::Stopped(format!("not running: {error}")),
        AskError::Unanswered { call, waited, .. } => {
            Health::Hung(format!("no answer to {call} for {}", duration::show(*waited)))
        }
        AskError::Resting { call, took, rest, .. } => Health::Hung(format!(
            "its last {call} took {}; it is asked again in {}",
            duration::show(*took),
            duration::show(*rest)
        )),
        AskError::GuestHung { silence, .. } => Health::Hung(format!(
            "guest hung: its agent has not answered for {}",
            duration::show(silence.waited)
        )),
        AskError::Starting { .. } => Health::Answers(Some("starting")),
        AskError::NoStatistics(_) => Health::Unmeasured,
        AskError::Shim(_)
        | AskError::NoGuest { .. }
        | AskError::NoAddress(_)
        | AskError::Decode { .. }
        | AskError::TooSoon { .. }
        | AskError::Cgroup(_) => Health::Failed(error.to_string()),
    }
}
