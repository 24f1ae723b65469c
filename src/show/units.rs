//! Numbers as people read them: bytes, rates, shares and ages.
//!
//! Sizes have three significant digits and binary units (`12.3MiB`), like `docker stats` and Kubernetes' `Mi`; ages look
//! as in `kubectl get`. Waits and intervals are written by [`go_duration::show`].

use std::time::Duration;

/// What a number measures, which decides how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `12.3MiB`, or `12.3M` in a narrow column.
    Bytes,
    /// `1.5KiB/s`, or `1.5K`.
    BytesPerSecond,
    /// `49.6%`, or `49.6`.
    Percent,
    /// 1 is all of it. `49.6%`, or `50`.
    Share,
    Count,
    /// In seconds: `3m12s`.
    Age,
}

impl Unit {
    pub fn show(self, number: f64) -> String {
        match self {
            Self::Bytes => bytes(number as u64),
            Self::BytesPerSecond => rate(number),
            Self::Percent => percent(number),
            Self::Share => percent(number * 100.0),
            Self::Count => (number as u64).to_string(),
            Self::Age => age(Duration::from_secs(number as u64)),
        }
    }

    /// For a narrow column, whose heading names the unit.
    pub fn narrow(self, number: f64) -> String {
        match self {
            Self::Bytes => compact(number as u64),
            Self::BytesPerSecond => compact(number.round() as u64),
            Self::Percent => percent(number).trim_end_matches('%').to_string(),
            Self::Share => format!("{:.0}", number * 100.0),
            Self::Count | Self::Age => self.show(number),
        }
    }

    /// What follows the name of a plain number of this unit, as in Prometheus: `_bytes`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Bytes => "_bytes",
            Self::BytesPerSecond => "_bytes_per_second",
            Self::Percent => "_percent",
            Self::Share => "_ratio",
            Self::Count => "",
            Self::Age => "_seconds",
        }
    }

    /// The most columns that [`show`](Self::show) needs, except for counts and percentages that are out of the ordinary.
    pub fn width(self) -> usize {
        match self {
            Self::Bytes => "1023KiB".len(),
            Self::BytesPerSecond => "1023KiB/s".len(),
            Self::Percent | Self::Share => "12800%".len(),
            Self::Count => "32768".len(),
            Self::Age => "2y364d".len(),
        }
    }
}

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

const SHORT_UNITS: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];

/// A size in bytes: `0B`, `1023B`, `1.5KiB`, `12.3MiB`, `128MiB`. It is cut to three significant digits, not rounded up:
/// what is below a limit never reads as the limit itself.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes, &UNITS)
}

/// The same for narrow columns, as in `top` and `free -h`: `1023B`, `1.5K`, `12.3M`.
fn compact(bytes: u64) -> String {
    scaled(bytes, &SHORT_UNITS)
}

fn scaled(bytes: u64, units: &[&str; 7]) -> String {
    let mut unit = 0;
    while unit + 1 < units.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let whole = bytes >> (10 * unit);
    let rest = bytes & ((1 << (10 * unit)) - 1);
    // Less than 2^70, which fits.
    let hundredths = ((u128::from(rest) * 100) >> (10 * unit)) as u64;
    let name = units.get(unit).copied().unwrap_or_default();
    match (whole, hundredths) {
        (_, 0) => format!("{whole}{name}"),
        (0..10, _) if hundredths.is_multiple_of(10) => format!("{whole}.{}{name}", hundredths / 10),
        (0..10, _) => format!("{whole}.{hundredths:02}{name}"),
        (10..100, 10..) => format!("{whole}.{}{name}", hundredths / 10),
        _ => format!("{whole}{name}"),
    }
}

/// Bytes per second: `0B/s`, `1.5KiB/s`.
pub fn rate(bytes_per_second: f64) -> String {
    // The cast saturates: a negative number or NaN becomes 0, one beyond u64 the largest.
    format!("{}/s", bytes(bytes_per_second.round() as u64))
}

/// A percentage, with one digit after the point below 100 (`0.0%`, `99.9%`), and none above (`100%`, `1600%`).
pub fn percent(percent: f64) -> String {
    if percent.abs() < 99.95 {
        // No "-0.0%" for a tiny negative number.
        format!("{:.1}%", (percent * 10.0).round() / 10.0 + 0.0)
    } else {
        format!("{percent:.0}%")
    }
}

/// An age as `kubectl get` prints it: `45s`, `3m12s`, `59m`, `5h7m`, `30h`, `3d4h`, `45d`, `2y10d`
/// (<https://github.com/kubernetes/apimachinery/blob/master/pkg/util/duration/duration.go>).
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |big: u64, big_unit: char, small: u64, small_unit: char| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    if minutes < 2 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, 'm', seconds % 60, 's')
    } else if hours < 3 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, 'd', hours % 24, 'h')
    } else if days < 365 * 2 {
        format!("{days}d")
    } else if days < 365 * 8 {
        two(days / 365, 'y', days % 365, 'd')
    } else {
        format!("{}y", days / 365)
    }
}

/// Processor time: in seconds with hundredths (the kernel's ticks), from two minutes on as an age.
pub fn cpu_time(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.2}s")
    } else {
        age(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_in_binary_units_and_three_digits() {
        for (number, text) in [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (1024 + 13, "1.01KiB"),
            (10_240 + 512, "10.5KiB"),
            (10_240 + 99, "10KiB"),
            (1024 * 1024 - 1, "1023KiB"),
            (32 << 20, "32MiB"),
            ((32 << 20) - 1, "31.9MiB"),
            (33_554_432 * 4, "128MiB"),
            (3 << 30, "3GiB"),
            (1 << 40, "1TiB"),
            (u64::MAX, "15.9EiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
        assert_eq!(compact(1023), "1023B");
        assert_eq!(compact((32 << 20) - 1), "31.9M");
    }

    #[test]
    fn rates_are_bytes_a_second() {
        assert_eq!(rate(0.0), "0B/s");
        assert_eq!(rate(0.4), "0B/s");
        assert_eq!(rate(1536.2), "1.5KiB/s");
        assert_eq!(rate(f64::NAN), "0B/s");
        assert_eq!(rate(-5.0), "0B/s");
        assert_eq!(rate(f64::INFINITY), "15.9EiB/s");
    }

    #[test]
    fn per_cent_with_a_digit_below_a_hundred() {
        for (number, text) in [
            (0.0, "0.0%"),
            (-0.01, "0.0%"),
            (0.04, "0.0%"),
            (0.05, "0.1%"),
            (50.04, "50.0%"),
            (99.94, "99.9%"),
            (99.96, "100%"),
            (100.4, "100%"),
            (1599.6, "1600%"),
        ] {
            assert_eq!(percent(number), text, "{number}");
        }
    }

    #[test]
    fn ages_as_kubectl_prints_them() {
        // The table of kubectl's own test (duration_test.go).
        const M: u64 = 60;
        const H: u64 = 60 * M;
        const D: u64 = 24 * H;
        const Y: u64 = 365 * D;
        for (seconds, text) in [
            (1, "1s"),
            (70, "70s"),
            (190, "3m10s"),
            (70 * M, "70m"),
            (47 * H, "47h"),
            (49 * H, "2d1h"),
            (8 * D + 2 * H, "8d"),
            (367 * D, "367d"),
            (4 * Y + 2 * D, "4y2d"),
            (10 * Y, "10y"),
            (5 * M, "5m"),
            (3 * H, "3h"),
            (7 * H + 59 * M, "7h59m"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn processor_times_are_exact_while_they_are_short() {
        assert_eq!(cpu_time(0.0), "0.00s");
        assert_eq!(cpu_time(119.994), "119.99s");
        assert_eq!(cpu_time(190.2), "3m10s");
        let _ = (cpu_time(1e30), cpu_time(f64::NAN));
    }

    #[test]
    fn a_number_is_written_by_its_unit() {
        for (unit, number, wide, narrow) in [
            (Unit::Bytes, 12_897_485.0, "12.3MiB", "12.3M"),
            (Unit::BytesPerSecond, 1535.6, "1.5KiB/s", "1.5K"),
            (Unit::Percent, 49.61, "49.6%", "49.6"),
            (Unit::Share, 0.496, "49.6%", "50"),
            (Unit::Count, 7.0, "7", "7"),
            (Unit::Age, 192.9, "3m12s", "3m12s"),
        ] {
            assert_eq!(
                (unit.show(number).as_str(), unit.narrow(number).as_str()),
                (wide, narrow)
            );
        }
    }

    proptest! {
        #[test]
        fn sizes_fit_their_columns(number in any::<u64>(), shift in 0..64u32) {
            let number = (number >> shift) as f64;
            for unit in [Unit::Bytes, Unit::BytesPerSecond] {
                prop_assert!(unit.show(number).len() <= unit.width());
                prop_assert!(unit.narrow(number).len() <= "1023K".len());
            }
        }

        #[test]
        fn nothing_panics(number in any::<f64>()) {
            for unit in [Unit::Bytes, Unit::BytesPerSecond, Unit::Percent, Unit::Share, Unit::Count, Unit::Age] {
                let _ = (unit.show(number), unit.narrow(number), cpu_time(number));
            }
        }
    }
}
