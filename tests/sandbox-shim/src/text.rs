//! Prometheus's text format, with numbers as the flavour's language prints them.

use std::{collections::BTreeMap, fmt::Write};

use crate::{flavour::Kind, monitor::Histogram};

/// A family's name, and its HELP and TYPE lines and samples.
pub type Family = (&'static str, String);

/// Writes families; one without a sample is empty, as it would not be there with Prometheus's clients.
pub struct Writer {
    pub kind: Kind,
}

impl Writer {
    fn number(&self, value: f64) -> String {
        match self.kind {
            Kind::Go => go_float(value),
            Kind::Rust => value.to_string(),
        }
    }

    fn family(
        &self,
        name: &'static str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) -> Family {
        let mut text = String::new();
        for (suffix_and_labels, value) in samples {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{suffix_and_labels} {}", self.number(value));
        }
        if !text.is_empty() {
            text.insert_str(0, &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        (name, text)
    }

    pub fn one(&self, name: &'static str, help: &str, value: Option<f64>) -> Family {
        self.family(name, "gauge", help, value.map(|value| (String::new(), value)))
    }

    pub fn counter(&self, name: &'static str, help: &str, value: Option<f64>) -> Family {
        self.family(name, "counter", help, value.map(|value| (String::new(), value)))
    }

    pub fn items<K: AsRef<str>>(
        &self,
        name: &'static str,
        help: &str,
        items: impl IntoIterator<Item = (K, f64)>,
    ) -> Family {
        let label = |item: &str| format!("{{item=\"{item}\"}}");
        self.family(
            name,
            "gauge",
            help,
            items
                .into_iter()
                .map(|(item, value)| (label(item.as_ref()), value)),
        )
    }

    pub fn nested(
        &self,
        name: &'static str,
        help: &str,
        label: &str,
        groups: BTreeMap<String, BTreeMap<&'static str, f64>>,
    ) -> Family {
        let samples = groups.into_iter().flat_map(|(group, items)| {
            let line = move |item: &str| format!("{{{label}=\"{group}\",item=\"{item}\"}}");
            items.into_iter().map(move |(item, value)| (line(item), value))
        });
        self.family(name, "gauge", help, samples)
    }

    pub fn histogram(&self, name: &'static str, histogram: &Histogram) -> Family {
        let mut samples = Vec::new();
        for (action, observed) in histogram.actions() {
            for (power, bucket) in observed.buckets.iter().enumerate() {
                let bound = 1_u64 << power;
                samples.push((
                    format!("_bucket{{action=\"{action}\",le=\"{bound}\"}}"),
                    *bucket as f64,
                ));
            }
            samples.push((
                format!("_bucket{{action=\"{action}\",le=\"+Inf\"}}"),
                observed.count as f64,
            ));
            samples.push((format!("_sum{{action=\"{action}\"}}"), observed.sum_milliseconds));
            samples.push((format!("_count{{action=\"{action}\"}}"), observed.count as f64));
        }
        self.family(name, "histogram", "RPC latency distributions.", samples)
    }
}

/// A number as Go's `strconv.FormatFloat(value, 'g', -1, 64)` prints it: the shortest form that reads back the
/// same, with an exponent, of at least two digits, where that is below -4 or above 5.
fn go_float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All are lines of `crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt`, which Go wrote.
    #[test]
    fn prints_numbers_as_go_does() {
        for (value, text) in [
            (0.0, "0"),
            (95_749.0, "95749"),
            (290_816.0, "290816"),
            (1_242_359.0, "1.242359e+06"),
            (3_174_400.0, "3.1744e+06"),
            (84_615_168.0, "8.4615168e+07"),
            (35_184_372_087_808.0, "3.5184372087808e+13"),
            (18_446_744_073_709_551_615.0, "1.8446744073709552e+19"),
            (5.05, "5.05"),
            (0.009999999776482582, "0.009999999776482582"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }
}
