//! Points in time as text.

use std::time::SystemTime;

/// A time in UTC as RFC 3339 has it, to the second: `2026-11-21T22:35:01Z`. Times before 1970 are shown as its
/// beginning: nothing here is as old.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339_seconds(since.as_secs())
}

/// The same for seconds since 1970.
pub fn rfc3339_seconds(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let second = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// The date that is so many days after 1970-01-01 (<https://howardhinnant.github.io/date_algorithms.html>): years
/// are counted from March, so that the leap day is the last of a year.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (DAYS_OF_400_YEARS - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn known_times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_234_567_890, "2009-02-13T23:31:30Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339_seconds(seconds), text);
        }
        let before = SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00Z");
        let _ = rfc3339_seconds(u64::MAX);
    }

    #[test]
    fn agrees_with_date() {
        // Every 40 days or so, over 130 years.
        let times: Vec<u64> = (0..1200).map(|n| n * 3_456_789).collect();
        let input: String = times.iter().map(|t| format!("@{t}\n")).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("times");
        std::fs::write(&file, input).unwrap();
        let output = Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-f"])
            .arg(&file)
            .output()
            .unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        let ours: String = times
            .iter()
            .map(|t| format!("{}\n", rfc3339_seconds(*t)))
            .collect();
        assert_eq!(ours, expected);
    }
}
