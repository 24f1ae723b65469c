//! Points in time as text.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat};

/// The last second of the year 9999, the last that RFC 3339 can name.
const LAST: i64 = 253_402_300_799;

/// Seconds since 1970 as a time in UTC in the format of RFC 3339: `2026-11-21T22:35:01Z`. `None` before 1970 and after
/// the year 9999: a shim can send anything.
pub fn rfc3339(seconds: i64) -> Option<String> {
    let time = DateTime::from_timestamp(seconds, 0).filter(|_| (0..=LAST).contains(&seconds))?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The same for a time of the system clock.
pub fn rfc3339_of(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    rfc3339(i64::try_from(since.as_secs()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_utc_to_the_second() {
        // By `date -u -d @SECONDS +%Y-%m-%dT%H:%M:%SZ`.
        for (seconds, text) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (951_782_400, Some("2000-02-29T00:00:00Z")),
            (1_234_567_890, Some("2009-02-13T23:31:30Z")),
            (LAST, Some("9999-12-31T23:59:59Z")),
            (LAST + 1, None),
            (-1, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(rfc3339(seconds).as_deref(), text);
        }
        let epoch = SystemTime::UNIX_EPOCH;
        let time = epoch + Duration::from_millis(1_234_567_890_999);
        assert_eq!(rfc3339_of(time).as_deref(), Some("2009-02-13T23:31:30Z"));
        assert_eq!(rfc3339_of(epoch - Duration::from_secs(1)), None);
    }
}
