//! When a key of the schema is left out, and how numbers are written in it.

use serde::{Serialize, Serializer};

/// For a key that is left out when its number is zero or was not reported.
pub(super) fn is_zero(number: &(impl Copy + Into<Option<u64>>)) -> bool {
    (*number).into().unwrap_or(0) == 0
}

/// For a key that is always there.
pub(super) fn or_zero<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    number.unwrap_or(0).serialize(to)
}

/// For a key that is left out when its float has no form in JSON.
pub(super) fn is_no_number(number: &f64) -> bool {
    !number.is_finite()
}

/// As Go prints it: whole numbers without a fraction.
pub(super) fn float<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    // The first float that is past every u64; below it the conversion of a whole number is exact.
    const PAST_U64: f64 = 18_446_744_073_709_551_616.0;
    if number.fract() == 0.0 && (0.0..PAST_U64).contains(number) {
        to.serialize_u64(*number as u64)
    } else {
        to.serialize_f64(*number)
    }
}
