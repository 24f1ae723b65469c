//! Ticks that neither drift nor pile up.

use std::time::Duration;

use tokio::time::Instant;

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
            tokio::time::sleep_until(at).await;
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

    #[tokio::test(start_paused = true)]
    async fn ticks_do_not_drift_and_those_that_are_missed_are_skipped() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut ticks = Ticks::every(second * 2);
        let mut seen = Vec::new();
        // How long the work after each tick takes.
        for work in [0, 1999, 2000, 2001, 9000] {
            ticks.tick().await;
            seen.push(start.elapsed().as_secs());
            tokio::time::advance(Duration::from_millis(work)).await;
        }
        ticks.tick().await;
        seen.push(start.elapsed().as_secs());
        // The work that took 2.001 s covers the tick at 8 s, that of 9 s those from 12 to 18 s.
        assert_eq!(seen, [0, 2, 4, 6, 10, 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interval_can_be_longer_than_any_time() {
        let mut ticks = Ticks::every(Duration::MAX);
        ticks.tick().await;
        let year = Duration::from_secs(365 * 86_400);
        assert!(tokio::time::timeout(year, ticks.tick()).await.is_err());
    }
}
