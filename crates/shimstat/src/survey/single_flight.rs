//! Doing once what several want at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Work that is under way, or just done. Whoever wants the same joins it: two scrapers that come at once cost each
/// sandbox one call.
#[derive(Debug)]
pub struct SingleFlight<K, V> {
    fresh: Duration,
    flights: Mutex<HashMap<K, Weak<Flight<V>>>>,
}

/// One piece of such work, and what has come of it so far.
#[derive(Debug)]
pub struct Flight<V> {
    found: Mutex<V>,
    ended: OnceLock<Instant>,
    /// Wakes those who wait for the end, in the order in which they came.
    end: Notify,
}

impl<K: Eq + Hash, V: Send + 'static> SingleFlight<K, V> {
    /// What is done may be joined for a time `fresh` after its end, as long as somebody who has joined it before
    /// still holds it: what nobody holds any more is done anew.
    pub fn new(fresh: Duration) -> Self {
        Self {
            fresh,
            flights: Mutex::default(),
        }
    }

    /// Joins the work of that name where what is known of it `fits`, or begins it, with `nothing` known. It goes on
    /// to its end, whoever holds it.
    pub fn join<W>(
        &self,
        key: K,
        nothing: V,
        fits: impl FnOnce(&V) -> bool,
        work: impl FnOnce(Arc<Flight<V>>) -> W,
    ) -> Arc<Flight<V>>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade)
            && flight.is_fresh(self.fresh)
            && fits(&flight.found())
        {
            return flight;
        }
        let flight = Arc::new(Flight {
            found: Mutex::new(nothing),
            ended: OnceLock::new(),
            end: Notify::new(),
        });
        flights.insert(key, Arc::downgrade(&flight));
        let (work, landing) = (work(flight.clone()), flight.clone());
        tokio::spawn(async move {
            work.await;
            landing.ended.get_or_init(Instant::now);
            landing.end.notify_waiters();
        });
        flight
    }

    /// Whether nothing is under way, nor held by anybody.
    pub fn is_idle(&self) -> bool {
        let mut flights = self.flights();
        flights.retain(|_, flight| flight.strong_count() > 0);
        flights.is_empty()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<K, Weak<Flight<V>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Flight<V> {
    /// What is known so far.
    pub fn found(&self) -> MutexGuard<'_, V> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end.
    pub async fn ended(&self) {
        // From here on an end wakes it, so none is missed between the look and the wait.
        let end = self.end.notified();
        if self.ended.get().is_none() {
            end.await;
        }
    }

    fn is_fresh(&self, fresh: Duration) -> bool {
        self.ended.get().is_none_or(|ended| ended.elapsed() <= fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const FRESH: Duration = Duration::from_millis(200);

    struct Counter {
        shared: SingleFlight<&'static str, usize>,
        begun: Arc<AtomicUsize>,
    }

    impl Counter {
        fn new() -> Self {
            Self {
                shared: SingleFlight::new(FRESH),
                begun: Arc::default(),
            }
        }

        fn join(&self, key: &'static str, takes: Duration) -> Arc<Flight<usize>> {
            self.join_if(key, takes, true)
        }

        fn join_if(&self, key: &'static str, takes: Duration, fits: bool) -> Arc<Flight<usize>> {
            let begun = self.begun.clone();
            self.shared.join(
                key,
                0,
                |_| fits,
                |flight| async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    *flight.found() = 1;
                    tokio::time::sleep(takes).await;
                    *flight.found() = 2;
                },
            )
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_or_just_done_is_joined() {
        let counter = Counter::new();
        let first = counter.join("a", Duration::from_millis(20));
        let second = counter.join("a", Duration::ZERO);
        let other = counter.join("b", Duration::ZERO);
        assert!(Arc::ptr_eq(&first, &second));
        first.ended().await;
        second.ended().await;
        other.ended().await;
        assert_eq!((*second.found(), counter.begun()), (2, 2));
        let third = counter.join("a", Duration::ZERO);
        assert!(Arc::ptr_eq(&first, &third), "just done, and still held");
        tokio::time::sleep(FRESH * 2).await;
        let late = counter.join("a", Duration::ZERO);
        assert!(!Arc::ptr_eq(&first, &late), "too long ago");
        late.ended().await;
        assert_eq!(counter.begun(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_holds_is_done_anew_unless_it_is_under_way() {
        let counter = Counter::new();
        drop(counter.join("a", Duration::from_millis(50)));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let flight = counter.join("a", Duration::ZERO);
        assert_eq!(*flight.found(), 1, "so far");
        flight.ended().await;
        assert_eq!(counter.begun(), 1);
        assert!(!counter.shared.is_idle());
        drop(flight);
        tokio::task::yield_now().await;
        assert!(counter.shared.is_idle());
        counter.join("a", Duration::ZERO).ended().await;
        assert_eq!(counter.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_begun_beside_it() {
        let counter = Counter::new();
        let first = counter.join("a", Duration::from_millis(10));
        let second = counter.join_if("a", Duration::ZERO, false);
        assert!(!Arc::ptr_eq(&first, &second));
        second.ended().await;
        first.ended().await;
        assert_eq!(counter.begun(), 2);
    }
}
