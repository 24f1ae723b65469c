//! Go's durations: compared with a reader in floating point, and what is shown is read as the same.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;

/// Simple and inexact. `None` where it is not sure.
fn naive(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let units = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("μs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 6e10),
            ("h", 3.6e12),
        ];
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        sum += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    (!text.is_empty()).then_some(sign * sum)
}

fuzz_target!(|text: &str| {
    let nanos = go_duration::parse_nanos(text);
    if let (Ok(nanos), Some(naive)) = (&nanos, naive(text)) {
        let nanos = *nanos as f64;
        assert!(
            (nanos - naive).abs() <= 16.0 + nanos.abs() * 1e-9,
            "{text:?}: {nanos} {naive}"
        );
    }
    if let Ok(nanos) = nanos
        && let Ok(nanos) = u64::try_from(nanos)
    {
        let duration = Duration::from_nanos(nanos);
        // What is shown is rounded for people, so that it is read again at all is what counts.
        let shown = go_duration::show(duration);
        assert!(go_duration::parse_nanos(&shown).is_ok(), "{shown:?} of {nanos}");
    }
    let _ = go_duration::parse_positive(text);
});
