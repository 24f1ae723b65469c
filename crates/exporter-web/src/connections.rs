//! The connections that are open: how many there may be, and which goes where there is no room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::patience::Progress;

/// A client that takes its answer needs a moment now and then. One that has taken nothing for so long may be
/// closed where its pages' memory is needed.
const A_MOMENT: Duration = Duration::from_secs(1);

/// All open connections. Clones are the same.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    open: Mutex<Open>,
    /// Told when a connection has ended, or has given its pages back.
    room: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    progress: Progress,
    task: Option<AbortHandle>,
}

impl Connections {
    /// Room for so many connections.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            most: most.max(1),
            open: Mutex::default(),
            room: Notify::new(),
        }))
    }

    /// Waits for room for one more. Where there is none, the connection that has waited longest for its client is
    /// closed: a client that has something to ask is served, however many say nothing.
    pub async fn room(&self) {
        self.wait_for_room(self.0.most, Duration::ZERO, |_| true).await;
    }

    /// Waits until fewer than `most` answers hold the pages of a scrape. One whose client takes nothing of it may
    /// be closed for that.
    pub async fn room_for_pages(&self, most: usize) {
        self.wait_for_room(most, A_MOMENT, Progress::holds_pages).await;
    }

    async fn wait_for_room(&self, most: usize, waited: Duration, counts: impl Fn(&Progress) -> bool) {
        loop {
            // Made before it is looked, so that no connection ends unheard in between.
            let freed = self.0.room.notified();
            let wait = {
                let mut open = self.open();
                let counted = open.connections.iter().filter(|(_, one)| counts(&one.progress));
                let (mut count, mut longest) = (0, None::<(Instant, u64)>);
                for (number, connection) in counted {
                    count += 1;
                    if let Some(since) = connection.progress.waiting_since()
                        && longest.is_none_or(|(least, _)| since < least)
                    {
                        longest = Some((since, *number));
                    }
                }
                if count < most {
                    return;
                }
                match longest {
                    Some((since, number)) if since.elapsed() >= waited => {
                        if let Some(task) = open.connections.remove(&number).and_then(|one| one.task) {
                            task.abort();
                        }
                        continue;
                    }
                    _ => waited.max(Duration::from_millis(100)),
                }
            };
            let _ = tokio::time::timeout(wait, freed).await;
        }
    }

    /// Adds a connection, which is open as long as the guard lives.
    pub fn add(&self, progress: Progress) -> Place {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        let connection = Connection { progress, task: None };
        open.connections.insert(number, connection);
        Place {
            connections: self.clone(),
            number,
        }
    }

    /// Tells which task serves a connection.
    pub fn served_by(&self, number: u64, task: AbortHandle) {
        if let Some(connection) = self.open().connections.get_mut(&number) {
            connection.task = Some(task);
        }
    }

    /// Tells those who wait that there may be room.
    pub fn made_room(&self) {
        self.0.room.notify_waiters();
    }

    /// Closes the connections on which no request is being answered.
    pub fn close_idle(&self) {
        for connection in self.open().connections.values() {
            if let Some(task) = &connection.task
                && !connection.progress.is_answering()
            {
                task.abort();
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.open().connections.is_empty()
    }

    /// Waits until there are no more connections.
    pub async fn ended(&self) {
        loop {
            let freed = self.0.room.notified();
            if self.is_empty() {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), freed).await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among the others.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    pub number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.number);
        self.connections.made_room();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future)
    }

    /// A connection that lasts until it is closed.
    fn open(connections: &Connections, progress: &Progress) -> tokio::task::JoinHandle<()> {
        let place = connections.add(progress.clone());
        let number = place.number;
        let task = tokio::spawn(async move {
            let _place = place;
            std::future::pending::<()>().await;
        });
        connections.served_by(number, task.abort_handle());
        task
    }

    async fn is_closed(task: &tokio::task::JoinHandle<()>) -> bool {
        tokio::time::sleep(Duration::from_millis(1)).await;
        task.is_finished()
    }

    #[test]
    fn who_has_waited_longest_for_its_client_makes_room() {
        block_on(async {
            let connections = Connections::new(3);
            let mut tasks = Vec::new();
            let answering = Progress::new();
            let _guard = answering.answering();
            tasks.push(open(&connections, &answering));
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                tasks.push(open(&connections, &Progress::new()));
            }
            connections.room().await;
            assert!(is_closed(&tasks[1]).await, "silent for longest");
            assert!(!is_closed(&tasks[0]).await, "being answered");
            assert!(!is_closed(&tasks[2]).await);
        });
    }

    #[test]
    fn where_all_are_being_answered_one_more_waits() {
        block_on(async {
            let connections = Connections::new(2);
            let progress = [Progress::new(), Progress::new()];
            let _guards = progress.each_ref().map(Progress::answering);
            let tasks = progress.each_ref().map(|progress| open(&connections, progress));
            let room = tokio::time::timeout(Duration::from_secs(60), connections.room()).await;
            assert!(room.is_err());
            tasks[0].abort();
            connections.room().await;
            assert!(!is_closed(&tasks[1]).await);
        });
    }

    #[test]
    fn pages_that_nobody_takes_make_room_for_others() {
        block_on(async {
            let connections = Connections::new(100);
            let silent = open(&connections, &Progress::new());
            let holding = Progress::new();
            let _guard = holding.answering();
            holding.hold_pages();
            let task = open(&connections, &holding);
            connections.room_for_pages(2).await;
            let room = tokio::time::timeout(Duration::from_secs(60), connections.room_for_pages(1)).await;
            assert!(room.is_err(), "its client takes it: wait");
            assert!(!is_closed(&task).await && !is_closed(&silent).await);
        });
    }

    #[test]
    fn at_the_end_only_answers_are_waited_for() {
        block_on(async {
            let connections = Connections::new(10);
            let silent = open(&connections, &Progress::new());
            let busy = Progress::new();
            let _guard = busy.answering();
            let task = open(&connections, &busy);
            connections.close_idle();
            assert!(is_closed(&silent).await && !is_closed(&task).await);
            let ended = tokio::time::timeout(Duration::from_secs(60), connections.ended()).await;
            assert!(ended.is_err());
            task.abort();
            connections.ended().await;
        });
    }
}
