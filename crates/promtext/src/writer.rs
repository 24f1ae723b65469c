//! Writes families of the program's own.

use std::fmt::Write;

use crate::escape::{escape_help, escape_label};
use crate::kind::Kind;

/// A number, written exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// All its digits.
    Count(u64),
    /// The shortest decimal that reads as the same `f64`.
    Float(f64),
    /// Nanoseconds, written as seconds with up to nine decimals.
    Nanoseconds(u64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Value::Count(count)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Value::Float(float)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Value::Count(u64::from(yes))
    }
}

/// Writes the program's own families. Their order does not matter: [`Merge`](crate::Merge) groups and sorts them.
///
/// ```
/// use promtext::{Filter, Kind, Merge, Page, Relabel, Value, Writer};
///
/// let mut writer = Writer::default();
/// let mut cpu = writer.family("container_cpu_usage_seconds_total", Kind::Counter, "CPU time used.");
/// cpu.sample(&[("pod", "web-0"), ("container", "a \"b\"")], Value::Nanoseconds(1_500_000_001));
/// let mut took = writer.family("scrape_seconds", Kind::Summary, "Time taken.");
/// took.member("_sum", &[], 0.25).member("_count", &[], 7u64);
///
/// let page = Page::read(writer.into_text(), Relabel::default())?;
/// let page = Merge::new(vec![page], &Filter::default()).into_bytes();
/// let page = String::from_utf8_lossy(&page);
/// assert!(page.contains("container_cpu_usage_seconds_total{pod=\"web-0\",container=\"a \\\"b\\\"\"} 1.500000001\n"));
/// assert!(page.ends_with("# TYPE scrape_seconds summary\nscrape_seconds_sum 0.25\nscrape_seconds_count 7\n"));
/// # Ok::<(), promtext::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Writer {
    text: Vec<u8>,
}

impl Writer {
    /// Starts a family, or continues one: the first type and help of a name count.
    ///
    /// Names are not checked here: when the text is read, samples with an invalid name of a metric or label are left
    /// out, and counted as [lost](crate::Tally::lost).
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> FamilyWriter<'a> {
        for (word, text) in [("HELP", help), ("TYPE", kind.word())] {
            for part in ["# ", word, " ", name, " "] {
                self.text.extend_from_slice(part.as_bytes());
            }
            escape_help(text, &mut self.text);
            self.text.push(b'\n');
        }
        FamilyWriter {
            text: &mut self.text,
            name,
        }
    }

    /// Starts or continues a family without HELP and TYPE: for one page of many, if another page gives those for all.
    /// If none does, the family is `untyped`.
    pub fn samples<'a>(&'a mut self, name: &'a str) -> FamilyWriter<'a> {
        FamilyWriter {
            text: &mut self.text,
            name,
        }
    }

    /// The text, for [`Page::read`](crate::Page::read) or [`PageReader::read`](crate::PageReader::read).
    pub fn into_text(mut self) -> Vec<u8> {
        // Thousands of pages may be kept while they are served.
        self.text.shrink_to_fit();
        self.text
    }
}

/// Writes the samples of one family.
#[derive(Debug)]
pub struct FamilyWriter<'a> {
    text: &'a mut Vec<u8>,
    name: &'a str,
}

impl FamilyWriter<'_> {
    /// Writes a sample with these labels. Their values may be any text.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) -> &mut Self {
        self.member("", labels, value)
    }

    /// Writes a sample of a histogram or summary whose name has a suffix (`_bucket`, `_sum`, `_count`).
    pub fn member(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Into<Value>) -> &mut Self {
        self.text.extend_from_slice(self.name.as_bytes());
        self.text.extend_from_slice(suffix.as_bytes());
        let mut open = b'{';
        for (name, value) in labels {
            self.text.push(open);
            open = b',';
            self.text.extend_from_slice(name.as_bytes());
            self.text.extend_from_slice(b"=\"");
            escape_label(value, self.text);
            self.text.push(b'"');
        }
        if !labels.is_empty() {
            self.text.push(b'}');
        }
        self.text.push(b' ');
        write_value(value.into(), self.text);
        self.text.push(b'\n');
        self
    }
}

fn write_value(value: Value, out: &mut Vec<u8>) {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match value {
        Value::Count(count) => write!(text, "{count}"),
        Value::Nanoseconds(ns) => {
            let (seconds, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
            write!(text, "{seconds}.{rest:09}").map(|()| {
                let end = text.trim_end_matches('0').trim_end_matches('.').len();
                text.truncate(end);
            })
        }
        Value::Float(float) if float.is_nan() => write!(text, "NaN"),
        Value::Float(float) if float.is_infinite() => {
            write!(text, "{}Inf", if float > 0.0 { '+' } else { '-' })
        }
        Value::Float(float) if float == 0.0 || (1e-5..1e17).contains(&float.abs()) => write!(text, "{float}"),
        Value::Float(float) => write!(text, "{float:e}"),
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Filter, Merge, Page, Relabel};
    use proptest::prelude::*;

    fn page(writer: Writer, relabel: Relabel) -> Page {
        Page::read(writer.into_text(), relabel).unwrap()
    }

    fn written(value: impl Into<Value>) -> String {
        let mut out = Vec::new();
        write_value(value.into(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(written(u64::MAX), "18446744073709551615");
        assert_eq!(written(true), "1");
        assert_eq!(written(0.1), "0.1");
        assert_eq!(written(-2.0), "-2");
        assert_eq!(written(0.0), "0");
        assert_eq!(written(1e300), "1e300");
        assert_eq!(written(5e-324), "5e-324");
        assert_eq!(written(f64::NAN), "NaN");
        assert_eq!(written(f64::INFINITY), "+Inf");
        assert_eq!(written(f64::NEG_INFINITY), "-Inf");
        assert_eq!(written(Value::Nanoseconds(0)), "0");
        assert_eq!(written(Value::Nanoseconds(10_000_000_000)), "10");
        assert_eq!(written(Value::Nanoseconds(1)), "0.000000001");
        assert_eq!(written(Value::Nanoseconds(1_500_000_000)), "1.5");
        assert_eq!(written(Value::Nanoseconds(u64::MAX)), "18446744073.709551615");
    }

    #[test]
    fn a_family_in_two_parts_becomes_one_group() {
        let mut writer = Writer::default();
        writer
            .family("b", Kind::Gauge, "B\nof \\")
            .sample(&[("id", "1")], 1u64);
        writer.family("a", Kind::Gauge, "A").sample(&[], 1u64);
        writer
            .family("b", Kind::Counter, "other")
            .sample(&[("id", "2")], 2u64);
        let page = Merge::new(vec![page(writer, Relabel::default())], &Filter::default()).into_bytes();
        let expected = "# HELP a A\n# TYPE a gauge\na 1\n# HELP b B\\nof \\\\\n# TYPE b gauge\nb{id=\"1\"} 1\nb{id=\"2\"} 2\n";
        assert_eq!(String::from_utf8(page).unwrap(), expected);
    }

    #[test]
    fn a_page_without_types_gets_them_from_another() {
        let mut about = Writer::default();
        about.family("a", Kind::Counter, "A");
        about.family("unused", Kind::Gauge, "U");
        let labelled = |id: &str| {
            let mut writer = Writer::default();
            writer.samples("a").sample(&[("x", "1")], 1u64);
            page(writer, Relabel::new([("id", id)]).unwrap())
        };
        let pages = vec![page(about, Relabel::default()), labelled("one"), labelled("two")];
        let joined = Merge::new(pages, &Filter::default()).into_bytes();
        let expected = "# HELP a A\n# TYPE a counter\na{x=\"1\",id=\"one\"} 1\na{x=\"1\",id=\"two\"} 1\n";
        assert_eq!(String::from_utf8(joined).unwrap(), expected);
    }

    #[test]
    fn samples_with_an_invalid_name_are_counted() {
        let mut writer = Writer::default();
        writer.family("no name", Kind::Gauge, "").sample(&[], 1u64);
        assert_eq!(page(writer, Relabel::default()).tally().lost, 1);
    }

    proptest! {
        #[test]
        fn floats_read_back_as_themselves(float in any::<f64>()) {
            let text = written(float);
            prop_assert!(crate::number::is_float(text.as_bytes()), "{}", text);
            prop_assert!(text.parse::<f64>().unwrap().to_bits() == float.to_bits() || float.is_nan());
            prop_assert!(text.len() <= 25, "{}", text);
        }

        #[test]
        fn label_values_may_be_anything(value in any::<String>()) {
            let mut writer = Writer::default();
            writer.family("x", Kind::Gauge, &value).sample(&[("a", &value), ("b", "")], 1u64);
            let tally = page(writer, Relabel::default()).tally();
            prop_assert_eq!((tally.samples, tally.lost), (1, 0));
        }
    }
}
