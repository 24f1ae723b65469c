//! Which texts Prometheus reads as a number. Nothing here turns text into a number and back: a value stays as
//! it was written, and all that is asked is whether a scrape would fail over it.

use std::str::from_utf8;

/// Whether Prometheus reads `text` as a sample's value (or an `le` or `quantile` label as a bound).
///
/// That is Go's `strconv.ParseFloat` without what Prometheus and its Go client forbid beforehand (`p`, `P`,
/// `_`, and with them every hexadecimal form): decimals with or without an exponent, `Inf` and `Infinity`
/// with or without a sign and `NaN` without one, all in any case. A decimal past the largest `f64` is an
/// error there, one below the smallest is zero.
pub(super) fn is_float(text: &[u8]) -> bool {
    let unsigned = match text {
        [b'+' | b'-', rest @ ..] => rest,
        _ => text,
    };
    let whole = digits(unsigned);
    let mut end = whole;
    let mut fraction = 0;
    if unsigned.get(end) == Some(&b'.') {
        fraction = digits(unsigned.get(end + 1..).unwrap_or_default());
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return text.eq_ignore_ascii_case(b"nan")
            || unsigned.eq_ignore_ascii_case(b"inf")
            || unsigned.eq_ignore_ascii_case(b"infinity");
    }
    let mut exponent = 0;
    if let Some(b'e' | b'E') = unsigned.get(end) {
        end += 1;
        if let Some(b'+' | b'-') = unsigned.get(end) {
            end += 1;
        }
        exponent = digits(unsigned.get(end..).unwrap_or_default());
        if exponent == 0 {
            return false;
        }
        end += exponent;
    }
    if end != unsigned.len() {
        return false;
    }
    // 200 digits and an exponent of two stay below 1e300: only what is longer needs its magnitude looked at.
    (whole <= 200 && exponent <= 2)
        || from_utf8(unsigned).is_ok_and(|text| text.parse::<f64>().is_ok_and(f64::is_finite))
}

/// Whether Prometheus reads `text` as a timestamp: milliseconds since 1970, digits alone. (Its Go client also
/// takes a sign, a scrape does not.)
pub(super) fn is_timestamp(text: &[u8]) -> bool {
    !text.is_empty()
        && digits(text) == text.len()
        && (text.len() <= 18 || from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok()))
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tried on Debian's Prometheus 2.42 (a scrape) and promtool, one by one.
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
        /// Rust's own reader has Go's grammar, but for the signs of NaN and for overflow.
        #[test]
        fn agrees_with_the_standard_library(text in "[+-]?[0-9]{0,4}[.]?[0-9]{0,4}([eE][+-]?[0-9]{0,4})?") {
            prop_assert_eq!(is_float(text.as_bytes()), text.parse::<f64>().is_ok_and(f64::is_finite));
        }
    }
}
