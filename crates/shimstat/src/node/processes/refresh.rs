//! How often it is looked again at what hardly ever changes.

use std::time::{Duration, Instant};

/// What was found is at most this old.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// When something was looked at. It is looked at again once that is as long ago as it was known for by then, so often
/// while it is new, and at least once a minute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refresh {
    first: Instant,
    last: Instant,
}

impl Refresh {
    /// It was looked at for the first time.
    pub fn new(now: Instant) -> Self {
        Self {
            first: now,
            last: now,
        }
    }

    /// It was looked at again.
    pub fn again(self, now: Instant) -> Self {
        Self { last: now, ..self }
    }

    #[cfg(test)]
    pub fn ago(self, time: Duration) -> Self {
        let earlier = |instant: Instant| instant.checked_sub(time).unwrap_or(instant);
        Self {
            first: earlier(self.first),
            last: earlier(self.last),
        }
    }

    pub fn is_due(self, now: Instant) -> bool {
        let known_for = self.last.saturating_duration_since(self.first);
        now.saturating_duration_since(self.last) >= known_for.min(AT_LEAST_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_looked_at_often_and_the_rest_once_a_minute() {
        let start = Instant::now();
        let mut refresh = Refresh::new(start);
        let mut looked = Vec::new();
        for second in (0..=300).step_by(5) {
            let now = start + Duration::from_secs(second);
            if refresh.is_due(now) {
                refresh = refresh.again(now);
                looked.push(second);
            }
        }
        assert_eq!(looked, [0, 5, 10, 20, 40, 80, 140, 200, 260]);
    }
}
