//! What Prometheus reads as a number. A value is never converted: the only question is whether a scrape would fail.

use std::str::from_utf8;

/// Whether Prometheus reads `text` as a sample's value, or as the bound in an `le` or `quantile` label.
///
/// That is Go's `strconv.ParseFloat` without hexadecimal forms and underscores, which Prometheus and its Go client
/// reject. Rust's `str::parse` differs in two ways: it reads what is too large as infinite, and NaN with a sign.
pub(crate) fn is_float(text: &[u8]) -> bool {
    // Most values are whole numbers. To have `str::parse` read those too makes reading a page a third slower.
    if (1..=308).contains(&text.len()) && text.iter().all(u8::is_ascii_digit) {
        return true;
    }
    let is_infinity = || !text.iter().any(u8::is_ascii_digit);
    from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .is_some_and(|value| {
            value.is_finite() || (value.is_nan() && text.len() == 3) || (value.is_infinite() && is_infinity())
        })
}

/// Whether Prometheus reads `text` as a timestamp: milliseconds since 1970, digits only. (Its Go client takes a sign
/// too, a scrape does not.)
pub(crate) fn is_timestamp(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit) && from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each was tried with Prometheus 2.42 (a scrape) and its promtool.
    #[test]
    fn floats_are_those_of_prometheus() {
        for good in [
            "0",
            "1",
            "-1",
            "+5",
            ".5",
            "5.",
            "+.5E+3",
            "1.e5",
            "1e9",
            "1E-400",
            "9.223372036854776e+18",
            "Inf",
            "+Inf",
            "-inf",
            "Infinity",
            "-INFINITY",
            "NaN",
            "nan",
            "18446744073709551615",
            "1.7976931348623157e308",
            "0e99999",
            "000000000001e3",
            "0.000000000000000000000000000000000000000000000000000000000001",
        ] {
            assert!(is_float(good.as_bytes()), "{good}");
        }
        for bad in [
            "", "+", "-", ".", "e5", ".e5", "1e", "1e+", "0x10", "0x1p-2", "1_000", "1e400", "-1e400",
            "1.8e308", "+NaN", "-nan", "++1", "1.2.3", "1 ", " 1", "1\r", "1,5", "infinit", "in", "nane",
            "1f", "½", "\u{661}",
        ] {
            assert!(!is_float(bad.as_bytes()), "{bad}");
        }
        let long = |digits: usize| "9".repeat(digits);
        assert!(is_float(long(308).as_bytes()));
        assert!(!is_float(long(309).as_bytes()));
        assert!(is_float(format!("{}e-300", long(500)).as_bytes()));
        assert!(!is_float(&[0xff, b'1']));
    }

    #[test]
    fn timestamps_are_digits_that_fit() {
        for good in ["0", "007", "1700000000000", "9223372036854775807"] {
            assert!(is_timestamp(good.as_bytes()), "{good}");
        }
        for bad in ["", "-5", "+5", "1.5", "9223372036854775808", "1e3", " 1"] {
            assert!(!is_timestamp(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        /// Go's grammar of decimal numbers, as a check on Rust's.
        #[test]
        fn decimals_are_those_of_go(text in "[+-]?[0-9]{0,4}[.]?[0-9]{0,4}([eE][+-]?[0-9]{0,2})?") {
            let unsigned = text.trim_start_matches(['+', '-']);
            let (decimal, exponent) = match unsigned.split_once(['e', 'E']) {
                Some((decimal, exponent)) => (decimal, exponent.trim_start_matches(['+', '-'])),
                None => (unsigned, "0"),
            };
            let expected = !exponent.is_empty() && decimal.contains(|char: char| char.is_ascii_digit());
            prop_assert_eq!(is_float(text.as_bytes()), expected);
        }
    }
}
