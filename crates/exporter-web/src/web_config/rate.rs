//! How many requests are answered in a time.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::file::Rate;

/// A bucket that fills with one token an interval and holds `burst` of them; each request takes one.
#[derive(Debug, Default)]
pub struct Bucket(Mutex<Option<Level>>);

#[derive(Debug)]
struct Level {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Takes a token, where there is one.
    pub fn take(&self, rate: Rate, now: Instant) -> bool {
        let mut level = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = f64::from(rate.burst);
        let level = level.get_or_insert(Level {
            tokens: full,
            at: now,
        });
        let filled = now.saturating_duration_since(level.at).as_secs_f64() / rate.interval.as_secs_f64();
        level.tokens = (level.tokens + filled).min(full);
        level.at = now;
        let there = level.tokens >= 1.0;
        if there {
            level.tokens -= 1.0;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_and_then_one_an_interval() {
        let rate = Rate {
            interval: Duration::from_secs(2),
            burst: 3,
        };
        let bucket = Bucket::default();
        let start = Instant::now();
        let take = |millis| bucket.take(rate, start + Duration::from_millis(millis));
        assert_eq!([0, 0, 0, 0].map(take), [true, true, true, false]);
        assert_eq!([1_999, 2_000, 3_000, 4_000].map(take), [false, true, false, true]);
        // However long nothing is asked, no more than the burst is there at once.
        assert_eq!(
            [100_000, 100_000, 100_000, 100_000].map(take),
            [true, true, true, false]
        );
        let never = Rate { burst: 0, ..rate };
        assert!(!Bucket::default().take(never, start));
    }
}
