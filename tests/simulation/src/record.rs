//! What happened in a run, and what should not have.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Something that happened: when (in milliseconds), to whom, what, and a number that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub at: u64,
    pub who: u64,
    pub what: &'static str,
    pub number: u64,
}

/// Who the askers are in the record: numbers from here.
pub const ASKERS: u64 = 1000;

/// The record of one run.
#[derive(Debug)]
pub struct Record {
    begun: Instant,
    /// How long an answer is waited for.
    pub limit: Duration,
    pub concurrency: usize,
    events: Mutex<Vec<Event>>,
    findings: Mutex<Vec<String>>,
    /// When the program was last held up: then its deadlines are later.
    held_up: Mutex<Option<Instant>>,
    pub connections: AtomicUsize,
    outstanding: AtomicUsize,
    most_outstanding: AtomicUsize,
}

impl Record {
    pub fn new(limit: Duration, concurrency: usize) -> Self {
        Self {
            begun: Instant::now(),
            limit,
            concurrency,
            events: Mutex::default(),
            findings: Mutex::default(),
            held_up: Mutex::default(),
            connections: AtomicUsize::new(0),
            outstanding: AtomicUsize::new(0),
            most_outstanding: AtomicUsize::new(0),
        }
    }

    pub fn note(&self, who: u64, what: &'static str, number: u64) {
        let at = self.begun.elapsed().as_millis() as u64;
        self.events.lock().unwrap().push(Event {
            at,
            who,
            what,
            number,
        });
    }

    pub fn finding(&self, text: String) {
        let at = self.begun.elapsed();
        self.findings.lock().unwrap().push(format!("at {at:?}: {text}"));
    }

    /// The program is stopped, or the machine is busy with others: time goes by and nobody listens.
    pub async fn lose(&self, time: Duration) {
        // Noted before: others are woken first.
        *self.held_up.lock().unwrap() = Some(Instant::now() + time);
        tokio::time::advance(time).await;
    }

    /// Whether the program was held up at any time since then.
    pub fn was_held_up(&self, since: Instant) -> bool {
        self.held_up.lock().unwrap().is_some_and(|at| at >= since)
    }

    pub fn ask_begins(&self) {
        let now = self.outstanding.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_outstanding.fetch_max(now, Ordering::Relaxed);
    }

    pub fn ask_ends(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// The longest that a question may wait until it is its turn to be asked: whoever is asked at the same time makes room
    /// after a tenth of a second.
    pub fn longest_queue(&self) -> Duration {
        let rounds = self.most_outstanding.load(Ordering::Relaxed) / self.concurrency + 1;
        Duration::from_millis(101) * rounds as u32
    }

    /// The events in the order of their times. At the same time each one's own order counts, and not who came first: that
    /// may be left to a hash map.
    pub fn events(&self) -> Vec<Event> {
        let mut events = std::mem::take(&mut *self.events.lock().unwrap());
        events.sort_by_key(|event| (event.at, event.who));
        events
    }

    pub fn findings(&self) -> Vec<String> {
        std::mem::take(&mut *self.findings.lock().unwrap())
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}
