//! One simulated sandbox: what is the matter with it, what it was asked and what it said. The rules for whoever asks are
//! checked here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shimstat::node::Pod;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::mood::{Mood, Moods};
use crate::place;
use crate::record::Record;

/// The longest that Kata's shims wait for a guest.
const GUEST_WAIT: Duration = Duration::from_secs(60);

/// How long an agent is waited for when it is asked whether it lives.
const GUEST_CHECK: Duration = Duration::from_secs(2);

/// Times are in whole milliseconds, and a timer may go off one later.
const TICK: Duration = Duration::from_millis(1);

pub struct Sandbox {
    pub index: usize,
    pub is_kata: bool,
    /// Whether its shim handles one call at a time, as Kata's Go shim does.
    pub has_lock: bool,
    /// Whether it is well all the time.
    pub is_healthy: bool,
    pub containers: usize,
    /// When each container stops, the sandbox first.
    pub stops: Vec<Option<Instant>>,
    pub(crate) moods: Arc<Moods>,
    pub(crate) lock: AsyncMutex<()>,
    pub record: Arc<Record>,
    pub dice: Mutex<Dice>,
    live: Mutex<Live>,
}

struct Live {
    in_flight: Vec<(&'static str, Instant)>,
    last_state: Option<LastState>,
    rest_until: Option<Instant>,
    /// The last call to the agent was given up unanswered.
    guest_is_silent: bool,
    sent: HashMap<u64, Sent>,
    next_number: u64,
    progress: Instant,
    asks: HashMap<u64, Ask>,
    most_asks: usize,
}

/// The last call to the task service, where that was a State that was answered in time: for which id.
struct LastState {
    id: String,
    is_running: bool,
}

struct Sent {
    what: What,
    id: String,
    at: Instant,
}

/// An ask that waits: since when, and the longest time in which nothing happened for it.
struct Ask {
    since: Instant,
    longest_gap: Duration,
}

/// What a number was sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    State,
    Stats,
    Page,
}

/// A call that has come in and has not ended.
pub struct Pending {
    sandbox: Arc<Sandbox>,
    name: &'static str,
    id: String,
    since: Instant,
    ended: bool,
    /// Of a State that was answered: whether the task runs.
    runs: Option<bool>,
}

/// Between a call and the client's end of the connection that it came over: whoever ends it first.
pub type Slot = Arc<Mutex<Option<Pending>>>;

impl Sandbox {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        index: usize,
        is_healthy: bool,
        containers: usize,
        stops: Vec<Option<Instant>>,
        moods: Arc<Moods>,
        record: Arc<Record>,
        mut dice: Dice,
    ) -> Self {
        let is_kata = dice.percent(60);
        Self {
            index,
            is_kata,
            has_lock: is_kata && dice.percent(60),
            is_healthy,
            containers,
            stops,
            moods,
            lock: AsyncMutex::default(),
            record,
            dice: Mutex::new(dice),
            live: Mutex::new(Live {
                in_flight: Vec::new(),
                last_state: None,
                rest_until: None,
                guest_is_silent: false,
                sent: HashMap::new(),
                next_number: 1,
                progress: Instant::now(),
                asks: HashMap::new(),
                most_asks: 0,
            }),
        }
    }

    pub fn id(&self, number: usize) -> String {
        place::id(self.is_kata, self.index, number)
    }

    /// The pod that it is, as somebody finds it who has not seen it before.
    pub fn pod(&self) -> Pod {
        place::pod(self.is_kata, self.index, self.containers)
    }

    pub(crate) fn mood(&self) -> Mood {
        self.moods.now()
    }

    pub fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap()
    }

    /// Waits as the mood of the sandbox is. `false`: the guest was waited for in vain.
    pub async fn wait(&self, needs_guest: bool) -> bool {
        let begun = Instant::now();
        loop {
            match self.mood() {
                Mood::Slow => {
                    let time = self.dice().time(self.record.limit * 3);
                    tokio::time::sleep(time).await;
                    return true;
                }
                Mood::GuestHung if needs_guest && self.is_kata => {
                    let left = GUEST_WAIT.saturating_sub(begun.elapsed());
                    if tokio::time::timeout(left, self.moods.change()).await.is_err() {
                        return false;
                    }
                }
                Mood::Hung | Mood::Backlog | Mood::Gone => self.moods.change().await,
                _ => {
                    let time = self.dice().below(6);
                    tokio::time::sleep(Duration::from_millis(time)).await;
                    return true;
                }
            }
        }
    }

    /// Waits until nobody listens any more.
    pub async fn gone(&self) {
        self.moods.wait_for(|mood| mood == Mood::Gone).await;
    }

    pub fn has_stopped(&self, id: &str) -> bool {
        (0..=self.containers)
            .find(|number| self.id(*number) == id)
            .and_then(|number| self.stops.get(number).copied().flatten())
            .is_some_and(|stop| stop <= Instant::now())
    }

    /// A call comes in: whether it may.
    pub fn begin(self: &Arc<Self>, name: &'static str, id: &str) -> Pending {
        let now = Instant::now();
        self.record.note(self.index as u64, name, 0);
        let mut live = self.live();
        live.progress(now);
        for (other, since) in &live.in_flight {
            self.record.finding(format!(
                "sandbox {}: {name} while {other} has been in flight for {:?}",
                self.index,
                now - *since
            ));
        }
        if let Some(until) = live.rest_until.filter(|until| now + TICK < *until) {
            let rest = until - now;
            self.record.finding(format!(
                "sandbox {}: {name}, {rest:?} before the end of its rest",
                self.index
            ));
        }
        if name == "Stats" {
            match live.last_state.take() {
                // runc's shim has the last statistics of a task that has stopped, and needs no guest for them.
                Some(state) if state.id == id && (state.is_running || !self.is_kata) => {}
                _ => self.record.finding(format!(
                    "sandbox {}: Stats of {id} where State did not answer",
                    self.index
                )),
            }
            if live.guest_is_silent {
                self.record.finding(format!(
                    "sandbox {}: Stats of {id} while the guest hangs",
                    self.index
                ));
            }
        }
        if name == "GET /metrics" && live.guest_is_silent {
            self.record
                .finding(format!("sandbox {}: {name} while the guest hangs", self.index));
        }
        if name == "State" {
            live.last_state = None;
        }
        live.in_flight.push((name, now));
        Pending {
            sandbox: self.clone(),
            name,
            id: id.to_string(),
            since: now,
            ended: false,
            runs: None,
        }
    }

    /// A number to be sent as an answer.
    pub fn number(&self, what: What, id: &str) -> u64 {
        let mut live = self.live();
        let number = live.invent(self.index);
        let at = Instant::now();
        let id = id.to_string();
        live.sent.insert(number, Sent { what, id, at });
        number
    }

    /// A number that nobody may be told.
    pub fn invented(&self) -> u64 {
        self.live().invent(self.index)
    }

    /// A connect has come to an end.
    pub fn connect_ends(&self) {
        let mut live = self.live();
        live.progress(Instant::now());
        if self.mood() == Mood::Gone {
            live.guest_is_silent = false;
        }
    }

    pub fn ask_begins(&self, ask: u64) {
        self.record.ask_begins();
        let mut live = self.live();
        let since = Instant::now();
        let longest_gap = Duration::ZERO;
        live.asks.insert(ask, Ask { since, longest_gap });
        live.most_asks = live.most_asks.max(live.asks.len());
    }

    /// An ask has come to its end: checks how long it took.
    pub fn ask_ends(&self, ask: u64, is_answered: bool) {
        self.record.ask_ends();
        let mut live = self.live();
        let now = Instant::now();
        live.gaps(now);
        let Some(ended) = live.asks.remove(&ask) else {
            return;
        };
        let queue = self.record.longest_queue();
        let held_up = self.record.was_held_up(ended.since);
        // Where the agent listens and whether it lives is asked with a deadline of its own.
        let guest = if self.is_kata { GUEST_CHECK } else { Duration::ZERO };
        let longest = self.record.limit + queue + guest + TICK * 2;
        if ended.longest_gap > longest && !held_up {
            self.record.finding(format!(
                "sandbox {}: an ask waited for {:?} in which nothing happened, not {longest:?}",
                self.index, ended.longest_gap
            ));
        }
        if !self.is_healthy {
            return;
        }
        if !is_answered {
            self.record
                .finding(format!("sandbox {}: healthy, and not answered", self.index));
        }
        // State, the agent's address, a check, two kinds of statistics, a page: six milliseconds each.
        let own = Duration::from_millis(60) * (live.most_asks as u32 + 1);
        let took = now - ended.since;
        if took > queue + own && !held_up {
            self.record.finding(format!(
                "sandbox {}: healthy, and its answer took {took:?}",
                self.index
            ));
        }
    }

    /// An ask is given up.
    pub fn ask_is_dropped(&self, ask: u64) {
        self.record.ask_ends();
        self.live().asks.remove(&ask);
    }

    /// Whether a number was sent as this, about this container, since then.
    pub fn check(&self, number: u64, what: What, id: &str, since: Instant) {
        let is_sent = self
            .live()
            .sent
            .get(&number)
            .is_some_and(|sent| sent.what == what && sent.id == id && sent.at >= since);
        if !is_sent {
            self.record.finding(format!(
                "sandbox {}: {number} as {what:?} of {id}, which was not sent",
                self.index
            ));
        }
    }

    /// How long it may yet rest.
    pub fn rest(&self) -> Duration {
        let until = self.live().rest_until;
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap()
    }
}

impl Live {
    fn invent(&mut self, sandbox: usize) -> u64 {
        let number = ((sandbox as u64 + 1) << 20) + self.next_number;
        self.next_number += 1;
        number
    }

    fn progress(&mut self, now: Instant) {
        self.gaps(now);
        self.progress = now;
    }

    fn gaps(&mut self, now: Instant) {
        let progress = self.progress;
        for ask in self.asks.values_mut() {
            ask.longest_gap = ask.longest_gap.max(now - progress.max(ask.since));
        }
    }
}

impl Pending {
    /// A State is being answered.
    pub fn runs(&mut self, runs: bool) {
        self.runs = Some(runs);
    }

    /// The client does not wait for the answer any more.
    pub fn give_up(mut self) {
        if self.is_agents() {
            self.sandbox.live().guest_is_silent = true;
        }
        self.end();
    }

    /// The agent lets go of a call without waiting for its guest to answer: it says so.
    pub fn timed_out(mut self) {
        self.end();
        self.sandbox.live().guest_is_silent = true;
    }

    fn is_agents(&self) -> bool {
        self.name.starts_with("agent ")
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = Instant::now();
        let record = &self.sandbox.record;
        let took = now - self.since;
        record.note(self.sandbox.index as u64, "has ended", took.as_millis() as u64);
        let mut live = self.sandbox.live();
        live.progress(now);
        live.in_flight.retain(|call| *call != (self.name, self.since));
        let is_late = took > record.limit + TICK && !record.was_held_up(self.since);
        match (self.name, self.runs) {
            ("State", Some(is_running)) if !is_late => {
                let id = self.id.clone();
                live.last_state = Some(LastState { id, is_running });
            }
            ("Stats" | "GET /metrics", _) if is_late => live.rest_until = Some(now + took),
            _ => {}
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.ended && self.is_agents() {
            self.sandbox.live().guest_is_silent = false;
        }
        self.end();
    }
}
