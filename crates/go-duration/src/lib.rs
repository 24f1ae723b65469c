#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]

use std::time::Duration;

/// Why a text is not a duration. The words are those that Go's tools print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It does not have the form of one, or has more nanoseconds than 63 bits hold.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit; the whole text.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// Zero or less, where it must be longer. The sentence is the one that users of Kata's `events` know.
    #[error("duration interval must be greater than 0")]
    NotPositive,
    /// An unknown unit.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit as it was written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Parses a duration; the result is in nanoseconds and may be negative, as in Go.
pub fn parse_nanos(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_string());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after_whole) = digits(rest);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(tail) => digits(tail),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = after_number
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after_number.len());
        let (unit, tail) = after_number.split_at(unit_len);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_string()));
        }
        let unit_nanos = nanos_of(unit).ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_string(),
            text: text.to_string(),
        })?;
        let whole = if whole.is_empty() {
            0
        } else {
            whole.parse::<u64>().map_err(|_| invalid())?
        };
        total += i128::from(whole) * unit_nanos + fraction_nanos(fraction, unit_nanos);
        // Checked at every step, so that a long text cannot overflow the sum itself.
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Parses a duration that must be longer than zero.
pub fn parse_positive(text: &str) -> Result<Duration, DurationError> {
    match parse_nanos(text)? {
        nanos if nanos > 0 => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        _ => Err(DurationError::NotPositive),
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn nanos_of(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        // U+00B5 (micro sign) and U+03BC (Greek mu): Go takes both.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Nanoseconds of the digits after the point: in floating point, cut off, and from as many digits as fit 63
/// bits, because Go does it so and the two shall agree to the nanosecond.
fn fraction_nanos(fraction: &str, unit_nanos: i128) -> i128 {
    let mut value: u64 = 0;
    let mut scale: f64 = 1.0;
    for digit in fraction.bytes() {
        let more = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(u64::from(digit - b'0')));
        let Some(more) = more.filter(|more| *more <= 1 << 63) else {
            break;
        };
        value = more;
        scale *= 10.0;
    }
    (value as f64 * (unit_nanos as f64 / scale)) as i128
}

/// A time span for people: `3s`, `1.5s`, `250ms`, `2m5s`.
pub fn show(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0 => format!("{}µs", span.as_micros()),
        1..=999 => format!("{millis}ms"),
        1_000..=59_999 if millis % 1_000 < 100 => format!("{}s", millis / 1_000),
        1_000..=59_999 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{}m{}s", millis / 60_000, millis % 60_000 / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_what_go_takes() {
        // From the table of Go's own time package tests.
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("30s", 30_000_000_000),
            ("1478s", 1_478_000_000_000),
            ("-5s", -5_000_000_000),
            ("+5s", 5_000_000_000),
            ("-0", 0),
            ("+0", 0),
            ("5.0s", 5_000_000_000),
            ("5.6s", 5_600_000_000),
            ("5.s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.0s", 1_000_000_000),
            ("1.004s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("13ms", 13_000_000),
            ("15m", 900_000_000_000),
            ("16h", 57_600_000_000_000),
            ("3h30m", 12_600_000_000_000),
            ("10.5s4m", 250_500_000_000),
            ("-2m3.4s", -123_400_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("39h9m14.425s", 140_954_425_000_000),
            ("52763797000ns", 52_763_797_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("9223372036854775807ns", i64::MAX),
            ("9223372036854775.807us", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036854775.808us", i64::MIN),
        ] {
            assert_eq!(parse_nanos(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", " 1s", "1s ", "1 s", "--1s", "3000000h",
        ] {
            assert!(parse_nanos(text).is_err(), "{text:?}");
        }
        assert_eq!(
            parse_nanos("3").unwrap_err().to_string(),
            "time: missing unit in duration \"3\""
        );
        assert_eq!(
            parse_nanos("1x").unwrap_err().to_string(),
            "time: unknown unit \"x\" in duration \"1x\""
        );
        assert!(parse_nanos("9223372036854775808ns").is_err());
    }

    #[test]
    fn an_interval_is_longer_than_zero() {
        for text in ["0", "0s", "-1s"] {
            assert_eq!(
                parse_positive(text).unwrap_err().to_string(),
                "duration interval must be greater than 0"
            );
        }
        assert_eq!(parse_positive("500µs"), Ok(Duration::from_micros(500)));
    }

    #[test]
    fn shows_spans_as_people_write_them() {
        for (millis, text) in [
            (250, "250ms"),
            (3_000, "3s"),
            (1_001, "1s"),
            (1_199, "1.1s"),
            (1_500, "1.5s"),
            (125_000, "2m5s"),
        ] {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
        assert_eq!(show(Duration::from_micros(70)), "70µs");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse_nanos(&text);
        }

        #[test]
        fn reads_back_any_number_of_nanoseconds(nanos in 0..i64::MAX) {
            prop_assert_eq!(parse_nanos(&format!("{nanos}ns")), Ok(nanos));
        }
    }
}
