//! The open connections: how many there may be, how long each may wait for its client, and which one is closed when
//! another needs its place.
//!
//! hyper's `header_read_timeout` ends a slow head, but nothing in hyper or tokio ends an answer that its client does
//! not take, or closes the one connection out of 256 that has been silent for longest. Both need to know what every
//! connection is waiting for, which is what this table holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A scraper has one connection or two, people have a few.
const MAX_CONNECTIONS: usize = 256;

/// For the TLS handshake and the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// For the next request. Prometheus keeps its connection from one scrape to the next, by default 60 s later.
const NEXT_REQUEST: Duration = Duration::from_secs(120);

/// For the client to take one more chunk of its answer.
const CHUNK: Duration = Duration::from_secs(10);

/// For the client to take all of its answer. Its scrape has timed out long before.
const WHOLE_ANSWER: Duration = Duration::from_secs(120);

/// A large answer that has not moved for this long is given up where another waits for its place.
const LARGE_CHUNK: Duration = Duration::from_secs(1);

/// How often those who wait for a place look again. What they wait for may come without an event: time that passes.
const RETRY: Duration = Duration::from_millis(100);

/// All open connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_large: usize,
    open: Mutex<Open>,
    /// Notified when a connection or an answer has ended.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    task: Option<AbortHandle>,
    /// When it was accepted, or its last answer ended.
    idle_since: Instant,
    /// How long it may be idle.
    patience: Duration,
    /// What is being answered: with HTTP/2, several requests at once.
    answers: HashMap<u64, Answer>,
}

#[derive(Debug, Default)]
struct Answer {
    large: bool,
    /// `None` while it is being made: then nobody waits for the client.
    sending: Option<Sending>,
}

#[derive(Debug, Clone, Copy)]
struct Sending {
    since: Instant,
    /// When the client had taken enough for one more chunk to be written.
    moved: Instant,
}

impl Connection {
    /// Since when it waits for its client and for nothing else.
    fn waiting_since(&self) -> Option<Instant> {
        if self.answers.is_empty() {
            return Some(self.idle_since);
        }
        let moved = self.answers.values().map(|answer| Some(answer.sending?.moved));
        moved.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Since when a large answer has not moved.
    fn large_waiting_since(&self) -> Option<Instant> {
        let large = self.answers.values().filter(|answer| answer.large);
        large.filter_map(|answer| Some(answer.sending?.moved)).min()
    }

    /// When it is closed unless something happens; `None` while answers are being made.
    fn deadline(&self) -> Option<Instant> {
        if self.answers.is_empty() {
            return Some(self.idle_since + self.patience);
        }
        let sending = self.answers.values().filter_map(|answer| answer.sending);
        sending
            .map(|sending| (sending.moved + CHUNK).min(sending.since + WHOLE_ANSWER))
            .min()
    }
}

impl Open {
    /// Closes the connection that has waited longest, if it has waited for at least `least`.
    fn evict(&mut self, least: Duration, since: impl Fn(&Connection) -> Option<Instant>) -> bool {
        let waiting = self
            .connections
            .iter()
            .filter_map(|(number, connection)| Some((since(connection)?, *number)));
        let Some((since, number)) = waiting.min() else {
            return false;
        };
        if since.elapsed() < least {
            return false;
        }
        if let Some(task) = self.connections.remove(&number).and_then(|evicted| evicted.task) {
            task.abort();
        }
        true
    }

    fn answer(&mut self, connection: u64, answer: u64) -> Option<&mut Answer> {
        self.connections.get_mut(&connection)?.answers.get_mut(&answer)
    }
}

impl Connections {
    /// At most `max_large` large answers are sent at the same time.
    pub fn new(max_large: usize) -> Self {
        Self(Arc::new(Shared {
            max_large: max_large.max(1),
            open: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Takes a place for a connection. Where there is none, the connection that has waited longest for its client
    /// is closed: silent clients, however many, keep nobody out.
    pub async fn admit(&self) -> Place {
        loop {
            // Created before the table is read, so that nothing ends unnoticed in between.
            let freed = self.0.freed.notified();
            {
                let mut open = self.lock();
                if open.connections.len() < MAX_CONNECTIONS
                    || open.evict(Duration::ZERO, Connection::waiting_since)
                {
                    return self.place(&mut open);
                }
            }
            let _ = tokio::time::timeout(RETRY, freed).await;
        }
    }

    fn place(&self, open: &mut Open) -> Place {
        let number = open.next;
        open.next += 1;
        let connection = Connection {
            task: None,
            idle_since: Instant::now(),
            patience: FIRST_REQUEST,
            answers: HashMap::new(),
        };
        open.connections.insert(number, connection);
        Place {
            connections: self.clone(),
            number,
        }
    }

    /// Says which task serves a connection, so that it can be closed.
    pub fn served_by(&self, number: u64, task: AbortHandle) {
        if let Some(connection) = self.lock().connections.get_mut(&number) {
            connection.task = Some(task);
        }
    }

    /// Closes the connections on which nothing is being answered.
    pub fn close_idle(&self) {
        let open = self.lock();
        let idle = open.connections.values().filter(|one| one.answers.is_empty());
        for task in idle.filter_map(|connection| connection.task.as_ref()) {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the table, given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    pub number: u64,
}

impl Place {
    /// Notes that a request has come in whole.
    pub fn answering(&self) -> Answering {
        let mut open = self.connections.lock();
        let number = open.next;
        open.next += 1;
        if let Some(connection) = open.connections.get_mut(&self.number) {
            connection.answers.insert(number, Answer::default());
        }
        Answering {
            connections: self.connections.clone(),
            connection: self.number,
            number,
        }
    }

    /// Waits until the client has kept the connection waiting for too long.
    pub async fn expired(&self) {
        loop {
            let now = Instant::now();
            let deadline = {
                let open = self.connections.lock();
                match open.connections.get(&self.number) {
                    Some(connection) => connection.deadline(),
                    None => return,
                }
            };
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            // An answer that begins meanwhile has an earlier deadline, though not one before this.
            let next = now + CHUNK;
            tokio::time::sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().connections.remove(&self.number);
        self.connections.0.freed.notify_waiters();
    }
}

/// A request that is being answered, until dropped.
#[derive(Debug)]
pub struct Answering {
    connections: Connections,
    connection: u64,
    number: u64,
}

impl Answering {
    /// Notes that the client has room for one more chunk.
    pub fn moved(&self) {
        if let Some(answer) = self.connections.lock().answer(self.connection, self.number) {
            let now = Instant::now();
            answer
                .sending
                .get_or_insert(Sending {
                    since: now,
                    moved: now,
                })
                .moved = now;
        }
    }

    /// Takes one of the places for large answers, and holds it until the answer has been sent. One whose client
    /// does not take it may have to make way.
    pub async fn claim_large(&self) {
        loop {
            let freed = self.connections.0.freed.notified();
            {
                let mut open = self.connections.lock();
                let answers = open.connections.values().flat_map(|one| one.answers.values());
                if answers.filter(|answer| answer.large).count() < self.connections.0.max_large {
                    if let Some(answer) = open.answer(self.connection, self.number) {
                        answer.large = true;
                    }
                    return;
                }
                if open.evict(LARGE_CHUNK, Connection::large_waiting_since) {
                    continue;
                }
            }
            let _ = tokio::time::timeout(RETRY, freed).await;
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        if let Some(connection) = open.connections.get_mut(&self.connection) {
            connection.answers.remove(&self.number);
            connection.idle_since = Instant::now();
            connection.patience = NEXT_REQUEST;
        }
        drop(open);
        self.connections.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    /// A connection that stays open until it is closed from outside or has kept us waiting for too long.
    async fn open(connections: &Connections) -> (Arc<Place>, JoinHandle<()>) {
        let place = Arc::new(connections.admit().await);
        let served = place.clone();
        let task = tokio::spawn(async move { served.expired().await });
        connections.served_by(place.number, task.abort_handle());
        (place, task)
    }

    async fn is_closed(task: &JoinHandle<()>) -> bool {
        tokio::time::sleep(Duration::from_millis(1)).await;
        task.is_finished()
    }

    /// How long until a connection is closed.
    async fn closes_after(task: JoinHandle<()>) -> Duration {
        let started = Instant::now();
        task.await.unwrap();
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_silent_connection_makes_room() {
        let connections = Connections::new(8);
        let mut all = vec![open(&connections).await];
        let _answering = all[0].0.answering();
        for _ in 1..MAX_CONNECTIONS {
            tokio::time::sleep(Duration::from_millis(1)).await;
            all.push(open(&connections).await);
        }
        let one_more = open(&connections).await;
        assert!(!is_closed(&all[0].1).await, "it is being answered");
        assert!(is_closed(&all[1].1).await, "it has been silent for longest");
        assert!(!is_closed(&all[2].1).await);
        assert!(!is_closed(&one_more.1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_being_answered_one_more_waits() {
        let connections = Connections::new(8);
        let mut all = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let (place, task) = open(&connections).await;
            all.push((place.answering(), place, task));
        }
        let admitted = tokio::time::timeout(WHOLE_ANSWER, connections.admit()).await;
        assert!(admitted.is_err());
        drop(all.pop());
        tokio::time::timeout(RETRY, connections.admit()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn large_answers_that_nobody_takes_make_way() {
        let connections = Connections::new(1);
        let (place, stalled) = open(&connections).await;
        let first = place.answering();
        first.claim_large().await;
        first.moved();
        let (place, _task) = open(&connections).await;
        let second = place.answering();
        let started = Instant::now();
        second.claim_large().await;
        let waited = started.elapsed();
        assert!(
            waited >= LARGE_CHUNK && waited < LARGE_CHUNK + 2 * RETRY,
            "{waited:?}"
        );
        assert!(is_closed(&stalled).await);
        // One that is being made is not closed: a third waits for it.
        let third = place.answering();
        let claimed = tokio::time::timeout(LARGE_CHUNK * 3, third.claim_large()).await;
        assert!(claimed.is_err());
        drop(second);
        third.claim_large().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_less_time_for_its_first_request() {
        let connections = Connections::new(8);
        let (_place, task) = open(&connections).await;
        assert_eq!(closes_after(task).await.as_secs(), FIRST_REQUEST.as_secs());
        let (place, task) = open(&connections).await;
        drop(place.answering());
        assert_eq!(closes_after(task).await.as_secs(), NEXT_REQUEST.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_long_to_make_but_not_to_take() {
        let connections = Connections::new(8);
        let (place, task) = open(&connections).await;
        let answering = place.answering();
        tokio::time::sleep(WHOLE_ANSWER * 2).await;
        assert!(!task.is_finished());
        answering.moved();
        let taken = closes_after(task).await;
        assert!(taken >= CHUNK && taken < CHUNK * 2, "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_drop_by_drop_is_given_up() {
        let connections = Connections::new(8);
        let (place, task) = open(&connections).await;
        let answering = place.answering();
        let drops = tokio::spawn(async move {
            loop {
                answering.moved();
                tokio::time::sleep(CHUNK / 2).await;
            }
        });
        let taken = closes_after(task).await;
        assert!(taken >= WHOLE_ANSWER && taken < WHOLE_ANSWER + CHUNK, "{taken:?}");
        drops.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_stalled_answer_of_several_ends_the_connection() {
        let connections = Connections::new(8);
        let (place, task) = open(&connections).await;
        let (stalled, well) = (place.answering(), place.answering());
        stalled.moved();
        let drops = tokio::spawn(async move {
            loop {
                well.moved();
                tokio::time::sleep(CHUNK / 2).await;
            }
        });
        assert!(closes_after(task).await < CHUNK * 2);
        drops.abort();
    }
}
