//! One sandbox's metrics as numbers, for people.
//!
//! `prometheus-parse` reads the numbers, as 64-bit floats. What it would read wrongly is kept from it and reported, and
//! promtext's count of samples checks the rest. Metrics are never passed on this way: only [`promtext`] keeps a value as
//! it was written.

use prometheus_parse::{Scrape, Value};
use promtext::{Filter, Merge, Page, Relabel, Tally};

/// How much of a line is shown, in characters.
const SHOWN: usize = 200;

/// A family with its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge`, `histogram`, `summary` or `untyped`.
    pub kind: String,
    pub help: Option<String>,
    /// In the order of the page.
    pub samples: Vec<Reading>,
}

/// A sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The family's name; in a histogram or summary it may be followed by `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// Sorted by name, escapes resolved.
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Reading {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let (_, value) = self.labels.iter().find(|(label, _)| label == name)?;
        Some(value)
    }
}

/// Why there are no readings.
#[derive(Debug, thiserror::Error)]
pub enum ReadingError {
    #[error(transparent)]
    Page(#[from] promtext::Error),
    #[error("read the answer: prometheus-parse found {read} of its {counted} samples")]
    Count { read: usize, counted: usize },
}

/// The families of a page that are asked for, sorted by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    pub families: Vec<Family>,
    /// What is missing in them, a sentence for each cause.
    pub left_out: Vec<String>,
}

impl Readings {
    /// Reads the families of a page that a filter lets through.
    pub fn read(body: &[u8], filter: &Filter) -> Result<Self, ReadingError> {
        let (page, tally) = select(body, filter)?;
        let page = String::from_utf8_lossy(&page);
        let mut families: Vec<Family> = Vec::new();
        let mut help = None;
        // The lines for prometheus-parse, and which family each belongs to.
        let (mut lines, mut owners) = (Vec::new(), Vec::new());
        let mut inexact = Vec::new();
        for line in page.lines() {
            if let Some(text) = line.strip_prefix("# HELP ") {
                help = text.split_once(' ').map(|(_, help)| unescape(help));
            } else if let Some(text) = line.strip_prefix("# TYPE ") {
                let (name, kind) = text.split_once(' ').unwrap_or((text, ""));
                families.push(Family {
                    name: name.to_string(),
                    kind: kind.to_string(),
                    help: help.take(),
                    samples: Vec::new(),
                });
            } else if is_read_exactly(line) {
                lines.push(Ok(line.to_string()));
                owners.push(families.len().saturating_sub(1));
            } else {
                inexact.push(line);
            }
        }
        // Without TYPE lines it keeps the samples of histograms and summaries as they are, in order.
        let samples = Scrape::parse(lines.into_iter()).map_or_else(|_| Vec::new(), |scrape| scrape.samples);
        let readings: Vec<_> = samples.iter().filter_map(reading).collect();
        let counted = promtext::count_samples(page.as_bytes());
        if readings.len() + inexact.len() != counted {
            let read = readings.len() + inexact.len();
            return Err(ReadingError::Count { read, counted });
        }
        for (owner, reading) in owners.into_iter().zip(readings) {
            if let Some(family) = families.get_mut(owner) {
                family.samples.push(reading);
            }
        }
        families.retain(|family| !family.samples.is_empty());
        let mut left_out: Vec<_> = invalid_lines(body, &tally).into_iter().collect();
        if let Some(first) = inexact.first() {
            let what = match inexact.len() {
                1 => "1 sample cannot be read exactly and is left out; it".to_string(),
                several => format!("{several} samples cannot be read exactly and are left out; the first"),
            };
            left_out.push(format!("{what} is: {}", shown(first)));
        }
        Ok(Self { families, left_out })
    }

    /// The samples of a family.
    pub fn samples(&self, name: &str) -> &[Reading] {
        let family = self.families.iter().find(|family| family.name == name);
        family.map_or(&[], |family| &family.samples)
    }

    /// The same as [`value`](Self::value), where it can be an amount.
    pub fn amount(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        amount(self.value(name, labels)?)
    }

    /// The value of the only sample of this name with these labels, if it is a finite number.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |reading: &&Reading| {
            labels
                .iter()
                .all(|(label, value)| reading.label(label) == Some(value))
        };
        let mut fitting = self.samples(name).iter().filter(fits);
        let (only, none) = (fitting.next()?, fitting.next());
        (none.is_none() && only.value.is_finite()).then_some(only.value)
    }
}

/// The families of a page that a filter lets through, each whole, sorted by name, every value as it was written.
pub fn select(body: &[u8], filter: &Filter) -> Result<(Vec<u8>, Tally), promtext::Error> {
    let page = Page::read(body.to_vec(), Relabel::default())?;
    let tally = page.tally();
    Ok((Merge::new(vec![page], filter).into_bytes(), tally))
}

/// Says which lines of a page are invalid, if there are some.
pub fn invalid_lines(body: &[u8], tally: &Tally) -> Option<String> {
    let first = tally.first?;
    let what = match tally.lost {
        0 => "not every HELP and TYPE comment is valid; the first that is not".to_string(),
        1 => "1 line is not a valid sample and is left out; it".to_string(),
        lost => format!("{lost} lines are not valid samples and are left out; the first"),
    };
    let line = body
        .split(|&byte| byte == b'\n')
        .nth(first.line.saturating_sub(1));
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    Some(format!(
        "{what} is line {}, {}: {}",
        first.line,
        first.fault,
        shown(&line)
    ))
}

fn shown(line: &str) -> String {
    line.chars().take(SHOWN).collect()
}

/// A number that can be an amount: Kata has been seen to send a negative one as 1.8e19.
pub fn amount(value: f64) -> Option<u64> {
    const MOST: f64 = (1_u64 << 60) as f64;
    (0.0..MOST).contains(&value).then_some(value as u64)
}

/// Whether prometheus-parse 0.2.5 reads a line in promtext's plain form without loss: it ignores names with a colon,
/// splits labels at every comma, equals sign and closing brace, and trims quotes.
fn is_read_exactly(line: &str) -> bool {
    let (name, labels) = match line.split_once('{') {
        Some((name, rest)) => (name, rest.rsplit_once('}').map(|(labels, _)| labels)),
        None => (line, None),
    };
    let is_whole = |label: &str| {
        let value = label
            .split_once("=\"")
            .and_then(|(_, value)| value.strip_suffix('"'));
        value.is_some_and(|value| !value.contains(['=', '"', '}']))
    };
    !name.contains(':') && labels.is_none_or(|labels| labels.split(',').all(is_whole))
}

/// A sample that was read without its TYPE line.
fn reading(sample: &prometheus_parse::Sample) -> Option<Reading> {
    let Value::Untyped(value) = sample.value else {
        return None;
    };
    let labels = sample.labels.iter();
    let mut labels: Vec<_> = labels
        .map(|(name, value)| (name.clone(), unescape(value)))
        .collect();
    labels.sort();
    Some(Reading {
        name: sample.metric.clone(),
        labels,
        value,
    })
}

/// Resolves the escapes of the format.
fn unescape(text: &str) -> String {
    let mut resolved = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => resolved.push('\n'),
                Some(escaped) => resolved.push(escaped),
                None => resolved.push('\\'),
            },
            _ => resolved.push(character),
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GO: &[u8] = include_bytes!("../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
    const RUST: &[u8] = include_bytes!("../crates/promtext/tests/fixtures/kata-3.30-rs/metrics.txt");

    fn read(page: &str) -> Result<Readings, ReadingError> {
        Readings::read(page.as_bytes(), &Filter::default())
    }

    /// The lines of a recording that are samples: Kata writes no comments but HELP and TYPE.
    fn lines(page: &[u8]) -> Vec<&str> {
        let page = std::str::from_utf8(page).unwrap();
        page.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn reads_every_sample_of_the_recorded_sandboxes() {
        for (page, families) in [(GO, 72), (RUST, 19)] {
            let readings = Readings::read(page, &Filter::default()).unwrap();
            assert_eq!(readings.families.len(), families);
            assert_eq!(readings.left_out, Vec::<String>::new());
            let mut read: Vec<String> = Vec::new();
            for reading in readings.families.iter().flat_map(|family| &family.samples) {
                let labels: Vec<_> = reading
                    .labels
                    .iter()
                    .map(|(n, v)| format!("{n}=\"{v}\""))
                    .collect();
                let labels = if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{}}}", labels.join(","))
                };
                read.push(format!("{}{labels} {:?}", reading.name, reading.value));
            }
            // Kata's labels are in the order of their names already.
            let mut expected: Vec<String> = lines(page)
                .iter()
                .map(|line| {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    format!("{series} {:?}", value.parse::<f64>().unwrap())
                })
                .collect();
            read.sort();
            expected.sort();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn families_keep_their_types_helps_and_parts() {
        let readings = Readings::read(GO, &Filter::default()).unwrap();
        let family = |name: &str| {
            readings
                .families
                .iter()
                .find(|family| family.name == name)
                .unwrap()
        };
        let summary = family("go_gc_duration_seconds");
        assert_eq!(summary.kind, "summary");
        let help = summary.help.as_deref().unwrap();
        assert!(help.starts_with("A summary of the wall-time pause"));
        assert_eq!(
            summary.samples.last().unwrap().name,
            "go_gc_duration_seconds_count"
        );
        let histogram = family("kata_shim_rpc_durations_histogram_milliseconds");
        assert_eq!(
            (histogram.kind.as_str(), histogram.samples.len()),
            ("histogram", 65)
        );
    }

    #[test]
    fn a_value_is_that_of_the_one_sample_that_fits() {
        let readings = Readings::read(GO, &Filter::default()).unwrap();
        assert_eq!(
            readings.value("kata_hypervisor_proc_status", &[("item", "vmrss")]),
            Some(332_455_936.0)
        );
        assert_eq!(
            readings.value("kata_guest_cpu_time", &[("cpu", "total"), ("item", "idle")]),
            Some(80_780.0)
        );
        assert_eq!(
            readings.value("kata_guest_cpu_time", &[("item", "idle")]),
            None,
            "one for each processor"
        );
        assert_eq!(readings.value("kata_agent_total_rss", &[]), Some(15_400_960.0));
        assert_eq!(readings.value("kata_agent_total_rss", &[("item", "x")]), None);
        assert_eq!(read("x NaN\n").unwrap().value("x", &[]), None);
    }

    #[test]
    fn a_filter_leaves_whole_families() {
        let filter = Filter::parse("kata_guest_load,go_gc");
        let readings = Readings::read(GO, &filter).unwrap();
        let names: Vec<_> = readings
            .families
            .iter()
            .map(|family| family.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "go_gc_duration_seconds",
                "go_gc_gogc_percent",
                "go_gc_gomemlimit_bytes",
                "kata_guest_load"
            ]
        );
        let (page, _) = select(GO, &Filter::parse("kata_guest_load")).unwrap();
        assert_eq!(
            String::from_utf8(page).unwrap(),
            "# HELP kata_guest_load Guest system load.\n# TYPE kata_guest_load gauge\n\
             kata_guest_load{item=\"load1\"} 0.09000000357627869\n\
             kata_guest_load{item=\"load15\"} 0.009999999776482582\n\
             kata_guest_load{item=\"load5\"} 0.03999999910593033\n"
        );
        assert!(select(GO, &Filter::parse("nothing")).unwrap().0.is_empty());
    }

    #[test]
    fn what_would_be_read_wrongly_is_left_out_and_named() {
        for line in [
            "a:b 1",
            "a{x=\"}\"} 1",
            "a{x=\"} 2 \"} 1",
            "a{x=\"1,2\"} 1",
            "a{x=\"1=2\"} 1",
            "a{x=\"he said \\\"yes\\\"\"} 1",
            "a{x=\"\\\"\"} 1",
            "a{x=\",y=\"} 1",
            "a{x=\"\\\",y=\\\"\"} 1",
        ] {
            let readings = read(&format!("fine 1\n{line}\n")).unwrap();
            let names: Vec<_> = readings.families.iter().map(|family| &family.name).collect();
            assert_eq!(names, ["fine"], "{line}");
            let what = format!("1 sample cannot be read exactly and is left out; it is: {line}");
            assert_eq!(readings.left_out, [what]);
        }
    }

    #[test]
    fn invalid_lines_are_counted_and_the_first_is_named() {
        let readings = read("# TYPE x what\nx 1\nx one\n?\n").unwrap();
        assert_eq!(readings.families[0].samples.len(), 1);
        let what =
            "2 lines are not valid samples and are left out; the first is line 3, no valid value: x one";
        assert_eq!(readings.left_out, [what]);
        let readings = read("# TYPE x what\nx 1\n").unwrap();
        assert_eq!(readings.families[0].kind, "untyped");
        assert!(
            readings.left_out[0].ends_with("is line 1, unknown type in a TYPE comment: # TYPE x what"),
            "{:?}",
            readings.left_out
        );
    }

    #[test]
    fn helps_are_unescaped_and_none_is_made_up() {
        let readings = read("# HELP x A\\nb \\\\n\nx 1\ny 1\n# HELP z \nz 1\n").unwrap();
        let helps: Vec<_> = readings
            .families
            .iter()
            .map(|family| family.help.as_deref())
            .collect();
        assert_eq!(helps, [Some("A\nb \\n"), None, None]);
    }

    #[test]
    fn other_valid_forms_are_read() {
        for (line, label, value) in [
            ("a {} 2", None, 2.0),
            ("a{ x = \"y\" , } 2.5e3", Some("y"), 2500.0),
            ("a{x=\"C:\\\\DIR\\nz\"} -1", Some("C:\\DIR\nz"), -1.0),
            (
                "a{x=\"日本 {\"} +Inf 1700000000000",
                Some("日本 {"),
                f64::INFINITY,
            ),
        ] {
            let readings = read(line).unwrap();
            let sample = &readings.families[0].samples[0];
            assert_eq!((sample.label("x"), sample.value), (label, value), "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(page in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Readings::read(&page, &Filter::default()).is_ok());
        }

        /// Whatever a label says, it is read as it is or left out.
        #[test]
        fn a_label_is_read_right_or_not_at_all(value in "[a,=}{\"\\\\ #é\n]{0,8}", other in "[a,=}\"\\\\]{0,4}") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let page = format!("m{{k=\"{}\",z=\"{}\"}} 1\n", escape(&value), escape(&other));
            let readings = read(&page).unwrap();
            prop_assert_eq!(readings.families.len() + readings.left_out.len(), 1);
            if let Some(family) = readings.families.first() {
                let sample = &family.samples[0];
                prop_assert_eq!(sample.label("k"), Some(value.as_str()));
                prop_assert_eq!(sample.label("z"), Some(other.as_str()));
                prop_assert_eq!(sample.labels.len(), 2);
            }
        }
    }
}
