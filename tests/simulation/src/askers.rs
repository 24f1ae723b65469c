//! Those who ask: what the program's commands do with a survey, and what else may happen to it.

use std::sync::Arc;
use std::time::Duration;

use shimstat::node::Container;
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::survey::{
    AskError, MonitorError, MonitorQuestion, Network, NotRunning, Sample, State, Statistics, Survey, Via,
};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::record::{ASKERS, Record};
use crate::sandbox::{Sandbox, What};
use crate::world::Known;

pub struct Asker {
    pub number: u64,
    pub known: Arc<Vec<Known>>,
    pub survey: Survey,
    pub record: Arc<Record>,
    pub dice: Dice,
    pub asks: u64,
    pub until: Instant,
}

/// An ask on its way. It is noted as dropped unless it comes to an end.
struct Asking {
    sandbox: Arc<Sandbox>,
    ask: u64,
    since: Instant,
    ended: bool,
}

impl Asking {
    fn ends(mut self, is_answered: bool) {
        self.ended = true;
        self.sandbox.ask_ends(self.ask, is_answered);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.ended {
            self.sandbox.ask_is_dropped(self.ask);
        }
    }
}

impl Asker {
    /// Does what it does until its time is over.
    pub async fn run(mut self) {
        let start = self.dice.time(Duration::from_secs(2));
        tokio::time::sleep(start).await;
        match self.dice.below(10) {
            0..=2 => self.stream().await,
            3 | 4 => self.rounds().await,
            5 | 6 => self.scrape().await,
            7 => self.give_up().await,
            8 => self.tidy().await,
            // Of a call no more than one deadline is forgiven, so the pauses may not follow upon each other.
            _ if self.number == 0 => self.be_held_up().await,
            _ => self.stream().await,
        }
    }

    /// As `events` does: one container, at every tick.
    async fn stream(&mut self) {
        let interval = Duration::from_millis(100) + self.dice.time(Duration::from_secs(3));
        let known = self.any();
        let container = self.any_of(known);
        while Instant::now() < self.until {
            let question = self.question();
            self.statistics(known, &container, question).await;
            tokio::time::sleep(interval).await;
        }
        self.survey.hang_up(&container);
    }

    /// As `list` and `top` do: all containers, with a deadline for all answers together.
    async fn rounds(&mut self) {
        while Instant::now() < self.until {
            let containers: Vec<(usize, Arc<Container>)> = self
                .known
                .iter()
                .enumerate()
                .flat_map(|(index, known)| known.pod.all().map(move |container| (index, container.clone())))
                .collect();
            let begun = Instant::now();
            let limit = self.record.limit;
            let all: Vec<_> = containers
                .iter()
                .map(|(_, container)| container.clone())
                .collect();
            containers.iter().for_each(|_| self.record.ask_begins());
            if self.dice.percent(50) {
                let asking = self.survey.begin(all, State).await;
                let answers = asking.answers(limit).await;
                self.check_round(begun, &containers);
                for ((index, container), answer) in containers.iter().zip(answers) {
                    self.check_state(*index, container, answer, begun, true);
                }
            } else {
                let question = self.question();
                let asking = self.survey.begin(all, question).await;
                let answers = asking.answers(limit).await;
                self.check_round(begun, &containers);
                for ((index, container), answer) in containers.iter().zip(answers) {
                    self.check_sample(*index, container, answer, begun, true);
                }
            }
            let pause = self.dice.time(Duration::from_secs(5));
            tokio::time::sleep(pause).await;
        }
    }

    fn check_round(&self, begun: Instant, containers: &[(usize, Arc<Container>)]) {
        containers.iter().for_each(|_| self.record.ask_ends());
        let took = begun.elapsed();
        let longest = self.record.limit + Duration::from_millis(1);
        if took > longest && !self.record.was_held_up(begun) {
            self.record
                .finding(format!("a round took {took:?}, not {longest:?}"));
        }
        self.record
            .note(ASKERS + self.number, "a round", took.as_millis() as u64);
    }

    /// As the exporter does: the sandbox's page or its guest's, then the statistics of what is in it.
    async fn scrape(&mut self) {
        while Instant::now() < self.until {
            let known = self.any();
            let (sandbox, pod) = {
                let known = &self.known[known];
                (known.sandbox.clone(), known.pod.clone())
            };
            if sandbox.is_kata {
                let asking = self.begin(&sandbox);
                let since = asking.since;
                let text = match self.dice.below(3) {
                    0 => {
                        let page = self
                            .survey
                            .ask_monitor(&pod, MonitorQuestion::Metrics, 1 << 20)
                            .await;
                        page.map(|page| String::from_utf8(page.body).unwrap())
                    }
                    1 => self.survey.guest_metrics(&pod).await.map(|page| page.text),
                    _ => {
                        let facts = self.survey.guest_facts(&pod, false).await;
                        facts.map(|facts| {
                            assert_eq!(facts.agent.version, "4.1.0");
                            String::new()
                        })
                    }
                };
                let is_stopped = matches!(
                    text,
                    Err(MonitorError::Ask(AskError::NotRunning(NotRunning::Stopped(_))))
                );
                asking.ends(text.is_ok() || is_stopped);
                match text {
                    Ok(text) => {
                        self.record
                            .note(ASKERS + self.number, "a page", text.len() as u64);
                        if let Some(number) = text.split_whitespace().nth(1) {
                            sandbox.check(number.parse().unwrap(), What::Page, "", since);
                        }
                    }
                    Err(MonitorError::Risk(risk)) => self.record.finding(format!("a risk: {risk}")),
                    Err(_) => self.record.note(ASKERS + self.number, "no page", 0),
                }
            }
            let containers: Vec<_> = pod.all().cloned().collect();
            for container in &containers {
                let question = self.question();
                self.statistics(known, container, question).await;
            }
            let pause = self.dice.time(Duration::from_secs(4));
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks, and does not always wait for the answer.
    async fn give_up(&mut self) {
        while Instant::now() < self.until {
            let known = self.any();
            let container = self.any_of(known);
            let question = self.question();
            let patience = self.dice.time(self.record.limit * 2);
            let _ = tokio::time::timeout(patience, self.statistics(known, &container, question)).await;
            let pause = self.dice.time(Duration::from_secs(1));
            tokio::time::sleep(pause).await;
        }
    }

    /// Has the survey forget what is idle.
    async fn tidy(&mut self) {
        while Instant::now() < self.until {
            match self.dice.below(3) {
                0 => self.survey.rest(),
                1 => self.survey.keep(|_| false),
                _ => {
                    let known = self.any();
                    let container = self.any_of(known);
                    self.survey.hang_up(&container);
                }
            }
            let pause = self.dice.time(Duration::from_secs(2));
            tokio::time::sleep(pause).await;
        }
    }

    /// The program is stopped, or the machine is busy with others: time goes by and nobody listens.
    async fn be_held_up(&mut self) {
        while Instant::now() < self.until {
            let pause = Duration::from_secs(1) + self.dice.time(Duration::from_secs(20));
            tokio::time::sleep(pause).await;
            let lost = self.dice.time(self.record.limit * 3);
            self.record
                .note(ASKERS + self.number, "held up", lost.as_millis() as u64);
            self.record.lose(lost).await;
        }
    }

    async fn statistics(&mut self, known: usize, container: &Arc<Container>, question: Statistics) {
        let asking = self.begin(&self.known[known].sandbox.clone());
        let since = asking.since;
        let answer = self.survey.ask(container, question).await;
        asking.ends(is_answer(&answer));
        self.check_sample(known, container, answer, since, false);
    }

    fn begin(&mut self, sandbox: &Arc<Sandbox>) -> Asking {
        self.asks += 1;
        let ask = self.number << 32 | self.asks;
        sandbox.ask_begins(ask);
        Asking {
            sandbox: sandbox.clone(),
            ask,
            since: Instant::now(),
            ended: false,
        }
    }

    fn check_sample(
        &self,
        known: usize,
        container: &Container,
        answer: Result<Sample, AskError>,
        since: Instant,
        is_round: bool,
    ) {
        let sandbox = &self.known[known].sandbox;
        let id = container.id();
        let who = ASKERS + self.number;
        match &answer {
            Ok(sample) => {
                let stats = &sample.stats;
                let numbers = [
                    stats.cpu.usage.total,
                    stats.cpu.usage.kernel,
                    stats.cpu.usage.user,
                    stats.memory.usage.usage,
                    stats.pids.current,
                ];
                for number in numbers.into_iter().flatten() {
                    sandbox.check(number, What::Stats, id, since);
                }
                if numbers[0].is_none() {
                    self.record
                        .finding(format!("sandbox {}: no number in an answer", sandbox.index));
                }
                sandbox.check(sample.state.pid.into(), What::State, id, since);
                if sample.state.status == TaskStatus::Stopped {
                    self.record
                        .finding(format!("sandbox {}: numbers of a stopped task", sandbox.index));
                }
                self.record.note(who, "numbers", numbers[0].unwrap_or_default());
            }
            Err(error) => self.note_error(error),
        }
        self.check_healthy(known, is_answer(&answer) || !is_round, since);
    }

    fn check_state(
        &self,
        known: usize,
        container: &Container,
        answer: Result<TaskState, AskError>,
        since: Instant,
        is_round: bool,
    ) {
        let sandbox = &self.known[known].sandbox;
        match &answer {
            Ok(state) => {
                sandbox.check(state.pid.into(), What::State, container.id(), since);
                self.record
                    .note(ASKERS + self.number, "a state", state.pid.into());
            }
            Err(error) => self.note_error(error),
        }
        self.check_healthy(known, is_answer(&answer) || !is_round, since);
    }

    /// A healthy row has an answer, where there is time for those who are asked at once.
    fn check_healthy(&self, known: usize, is_answered: bool, since: Instant) {
        let sandbox = &self.known[known].sandbox;
        let queue = self.record.longest_queue();
        let has_time = queue + Duration::from_millis(500) < self.record.limit;
        if sandbox.is_healthy && !is_answered && has_time && !self.record.was_held_up(since) {
            self.record.finding(format!(
                "sandbox {}: healthy, and its row has no answer",
                sandbox.index
            ));
        }
    }

    fn note_error(&self, error: &AskError) {
        let kind = match error {
            AskError::NotRunning(_) => "not running",
            AskError::Unanswered { .. } => "unanswered",
            AskError::Resting { .. } => "resting",
            AskError::GuestHung { .. } => "guest hung",
            AskError::NoGuest { .. } => "no guest",
            AskError::Shim(_) => "a wrong answer",
            AskError::Decode { .. } => "undecodable",
            _ => "another error",
        };
        self.record.note(ASKERS + self.number, kind, 0);
    }

    fn question(&mut self) -> Statistics {
        Statistics {
            network: Network::None,
            // With `Via::Shim` the guest is not looked at, as whoever says so wants it.
            via: self.dice.pick(&[Via::Both, Via::Both, Via::Guest]),
        }
    }

    fn any(&mut self) -> usize {
        self.dice.index(self.known.len())
    }

    fn any_of(&mut self, known: usize) -> Arc<Container> {
        let all: Vec<_> = self.known[known].pod.all().cloned().collect();
        all[self.dice.index(all.len())].clone()
    }
}

/// Whether it is what a healthy sandbox says. Of its guest there may be nothing to tell: it has none.
fn is_answer<T>(answer: &Result<T, AskError>) -> bool {
    matches!(
        answer,
        Ok(_) | Err(AskError::NotRunning(NotRunning::Stopped(_)) | AskError::NoGuest { .. })
    )
}
