//! Ticks that neither drift nor pile up.

use std::time::{Duration, Instant};

/// Ticks at multiples of an interval from the start. Those that pass while nobody waits are skipped.
pub struct Ticks {
    start: Instant,
    interval: Duration,
    /// The number of the next tick; `None` before the first, which is immediate.
    next: Option<u128>,
}

impl Ticks {
    pub fn every(interval: Duration) -> Self {
        Self {
            start: Instant::now(),
            interval: interval.max(Duration::from_nanos(1)),
            next: None,
        }
    }

    /// Waits for the next tick.
    pub async fn tick(&mut self) {
        let next = self.after(self.start.elapsed());
        if let Some(at) = self.at(next) {
            tokio::time::sleep_until(at.into()).await;
        } else {
            // It is centuries away.
            std::future::pending::<()>().await;
        }
        self.next = Some(next + 1);
    }

    /// The number of the next tick after this much time.
    fn after(&self, elapsed: Duration) -> u128 {
        match self.next {
            None => 0,
            Some(next) => next.max(elapsed.as_nanos().div_ceil(self.interval.as_nanos())),
        }
    }

    fn at(&self, number: u128) -> Option<Instant> {
        let nanos = self.interval.as_nanos().checked_mul(number)?;
        self.start
            .checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tick_is_at_once_and_missed_ones_are_gone() {
        let mut ticks = Ticks::every(Duration::from_secs(2));
        let at = |secs| Duration::from_millis(secs);
        assert_eq!(ticks.after(at(0)), 0);
        ticks.next = Some(1);
        assert_eq!(ticks.after(at(10)), 1, "an answer in time: the next tick");
        assert_eq!(ticks.after(at(2_000)), 1, "ready just at the tick");
        assert_eq!(
            ticks.after(at(2_001)),
            2,
            "a late answer: the tick that it covers is gone"
        );
        assert_eq!(ticks.after(at(9_000)), 5);
        assert_eq!(
            ticks.at(5),
            Some(ticks.start + Duration::from_secs(10)),
            "no drift"
        );
        assert_eq!(Ticks::every(Duration::MAX).at(u128::MAX), None);
    }
}
