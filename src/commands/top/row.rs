//! One container in the view: what its shim last said, and what that means.

use std::collections::VecDeque;
use std::sync::Arc;

use shimstat::node::{Container, Role};
use shimstat::rates::Rates;
use shimstat::survey::{AskError, NotRunning, Sample};

use crate::show::name::short_id;
use crate::show::text::escape;

/// How many values of the past a row keeps: at an interval of 2 s, ten minutes.
pub const HISTORY: usize = 300;

/// What one line shows. `None` is shown as `-`: nobody measured it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Per cent of one processor.
    pub cpu: Option<f64>,
    /// Memory that cannot be reclaimed at once, in bytes.
    pub memory: Option<u64>,
    /// The limit on memory, in bytes; `None` also where there is none.
    pub limit: Option<u64>,
    /// Bytes per second.
    pub rx: Option<f64>,
    pub tx: Option<f64>,
    pub read: Option<f64>,
    pub write: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The share of enforcement periods in which a quota held it back, 0 to 1.
    pub throttled: Option<f64>,
    /// Processes killed for want of memory since the container started.
    pub oom_kills: Option<u64>,
}

impl Figures {
    fn new(sample: &Sample, rates: &Rates) -> Self {
        let stats = &sample.stats;
        Self {
            cpu: rates.cpu_percent,
            memory: stats.memory.working_set(),
            limit: stats.memory.limit(),
            rx: rates.rx_bytes,
            tx: rates.tx_bytes,
            read: rates.read_bytes,
            write: rates.write_bytes,
            pids: stats.pids.current,
            throttled: rates.throttled,
            oom_kills: stats.memory.oom_kill,
        }
    }

    /// What a pod's members use together. A number that one of them does not have, their sum does not have
    /// either. The network is the one that they share, hence not a sum. Throttling is that of the one that is
    /// held back most. Limits are not added up here: not every member needs one.
    pub fn sum(members: &[Self]) -> Self {
        fn all<T: Copy + std::iter::Sum>(
            members: &[Figures],
            part: impl Fn(&Figures) -> Option<T>,
        ) -> Option<T> {
            if members.is_empty() {
                return None;
            }
            members.iter().map(part).sum()
        }
        fn shared(members: &[Figures], part: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
            members.iter().filter_map(part).reduce(f64::max)
        }
        Self {
            cpu: all(members, |m| m.cpu),
            memory: all(members, |m| m.memory),
            limit: None,
            rx: shared(members, |m| m.rx),
            tx: shared(members, |m| m.tx),
            read: some(members, |m| m.read),
            write: some(members, |m| m.write),
            pids: all(members, |m| m.pids),
            throttled: shared(members, |m| m.throttled),
            oom_kills: some(members, |m| m.oom_kills),
        }
    }
}

/// The sum of the numbers that are there: for what the kernel counts only once there is something to count.
fn some<T: Copy + std::iter::Sum>(members: &[Figures], part: impl Fn(&Figures) -> Option<T>) -> Option<T> {
    let mut numbers = members.iter().filter_map(part).peekable();
    numbers.peek()?;
    Some(numbers.sum())
}

/// Values of the past, the newest last; `None` where there was none.
#[derive(Debug, Clone, Default)]
pub struct History(VecDeque<Option<f64>>);

impl History {
    pub fn push(&mut self, value: Option<f64>) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The newest values, at most so many.
    pub fn last(&self, count: usize) -> impl Iterator<Item = Option<f64>> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).copied()
    }
}

/// How a container is, as far as its shim says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It has not been heard of yet.
    Waiting,
    /// Its statistics are there. The word is its status where that is not `running` (`paused`, `created`).
    Answers(Option<&'static str>),
    /// Its shim keeps silent, or is left alone for having kept silent.
    Hung(String),
    /// It does not run, and this is why.
    Stopped(String),
    /// Its shim answers something else than statistics.
    Failed(String),
}

/// One container.
#[derive(Debug, Clone)]
pub struct Row {
    pub container: Arc<Container>,
    pub health: Health,
    /// What it last said. Kept while it is silent: the next rates are reckoned from here.
    pub sample: Option<Sample>,
    pub rates: Rates,
    /// Per cent of one processor. A sandbox's row has the pod's.
    pub cpu: History,
}

impl Row {
    pub fn new(container: Arc<Container>) -> Self {
        Self {
            container,
            health: Health::Waiting,
            sample: None,
            rates: Rates::default(),
            cpu: History::default(),
        }
    }

    /// What its shim answered.
    pub fn take(&mut self, answer: Result<Sample, AskError>) {
        match answer {
            Ok(sample) => {
                self.rates = self
                    .sample
                    .as_ref()
                    .map(|before| Rates::between(before, &sample))
                    .unwrap_or_default();
                let word = sample.state.status.as_str();
                self.health = Health::Answers((word != "running").then_some(word));
                self.sample = Some(sample);
            }
            Err(error) => {
                self.rates = Rates::default();
                self.health = health(&error);
            }
        }
        if !self.container.is_sandbox() {
            self.cpu.push(self.figures().cpu);
        }
    }

    /// What it uses; nothing where it does not answer.
    pub fn figures(&self) -> Figures {
        match (&self.health, &self.sample) {
            (Health::Answers(_), Some(sample)) => Figures::new(sample, &self.rates),
            _ => Figures::default(),
        }
    }

    /// The name of the pod or of a plain container: what people know it by.
    pub fn title(&self) -> String {
        match (self.container.role(), self.container.names().pod()) {
            (Role::Plain, _) | (_, None) => self.short_id(),
            (_, Some(pod)) => escape(&pod).into_owned(),
        }
    }

    /// The name of a container in its pod.
    pub fn container_name(&self) -> String {
        match &self.container.names().container {
            Some(name) => escape(name).into_owned(),
            None => self.short_id(),
        }
    }

    /// The id, cut as other tools do where a program made it up.
    pub fn short_id(&self) -> String {
        short_id(self.container.id()).into_owned()
    }

    /// Whether a text that people type fits it: part of a name, of the id or of containerd's namespace.
    pub fn fits(&self, filter: &str) -> bool {
        let (bundle, names) = (&self.container.bundle, self.container.names());
        let pod = names.pod().unwrap_or_default();
        let wanted = filter.to_lowercase();
        [&bundle.id, &bundle.namespace, &pod]
            .into_iter()
            .chain(&names.container)
            .any(|text| text.to_lowercase().contains(&wanted))
    }
}

fn health(error: &AskError) -> Health {
    let text = escape(&error.to_string()).into_owned();
    match error {
        AskError::NotRunning(NotRunning::Stopped(state)) => {
            Health::Stopped(format!("stopped, exit status {}", state.exit_status))
        }
        AskError::NotRunning(NotRunning::Gone(_)) => Health::Stopped(format!("shim gone: {text}")),
        AskError::NotRunning(NotRunning::Unknown(_)) => Health::Stopped(format!("not running: {text}")),
        AskError::Unanswered { call, waited, .. } => Health::Hung(format!(
            "no answer to {call} for {}",
            crate::show::units::age(*waited)
        )),
        AskError::Resting { took, rest, .. } => Health::Hung(format!(
            "its last Stats took {}: left alone for {}",
            crate::show::units::age(*took),
            crate::show::units::age(*rest)
        )),
        AskError::Shim(_) | AskError::NoAddress(_) | AskError::Decode { .. } => Health::Failed(text),
    }
}
