//! What is the matter with a sandbox, and when.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;

use crate::dice::Dice;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Each answer takes up to three deadlines.
    Slow,
    /// It takes connections and requests, and answers when this is over.
    Hung,
    /// What needs the guest waits, until this is over or for a minute. Kata's Go shim holds its lock meanwhile.
    GuestHung,
    /// Connects wait.
    Backlog,
    /// Nobody listens, and what was open is closed.
    Gone,
    /// Wrong answers of all kinds.
    Lying,
    /// Answers come in pieces.
    Dripping,
    /// Connections are closed in the middle of an answer.
    Cutting,
}

/// The mood of a sandbox, and waiting for another. Those who wait are woken in the order in which they came: with tokio's
/// `watch` it would be left to chance.
#[derive(Debug)]
pub struct Moods {
    now: Mutex<Mood>,
    changes: Notify,
}

impl Moods {
    pub fn new(mood: Mood) -> Self {
        Self {
            now: Mutex::new(mood),
            changes: Notify::new(),
        }
    }

    pub fn now(&self) -> Mood {
        *self.now.lock().unwrap()
    }

    pub fn set(&self, mood: Mood) {
        *self.now.lock().unwrap() = mood;
        self.changes.notify_waiters();
    }

    pub async fn change(&self) {
        self.changes.notified().await;
    }

    pub async fn wait_for(&self, wanted: impl Fn(Mood) -> bool) {
        while !wanted(self.now()) {
            self.change().await;
        }
    }
}

const SICK: [Mood; 8] = [
    Mood::Slow,
    Mood::Hung,
    Mood::GuestHung,
    Mood::Backlog,
    Mood::Gone,
    Mood::Lying,
    Mood::Dripping,
    Mood::Cutting,
];

/// How long each mood lasts, one after the other.
pub fn plan(dice: &mut Dice, length: Duration) -> Vec<(Duration, Mood)> {
    // Some are well all the time: they are what the others must not hold up.
    if dice.percent(35) {
        return vec![(length, Mood::Well)];
    }
    let mut plan = Vec::new();
    let mut planned = Duration::ZERO;
    while planned < length {
        let mood = match dice.percent(40) {
            true => Mood::Well,
            false => dice.pick(&SICK),
        };
        let time = Duration::from_millis(200) + dice.time(length / 2);
        plan.push((time, mood));
        planned += time;
    }
    plan
}
