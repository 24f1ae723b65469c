//! One sandbox's metrics as numbers, for people.
//!
//! The numbers are read by `prometheus-parse`, a sample at a time, and each is checked: of some inputs it loses
//! samples or parts of labels without a word (a `:` in a name, a `}` or a comma in a label's value). Then there
//! are no readings at all, rather than some of them. Not for passing metrics on: a number is a 64-bit float here,
//! and nothing but [`promtext`] keeps it as it was written.

use std::iter;

use prometheus_parse::{Scrape, Value};

use promtext::{self, Filter, Merge, Page, PageTooLong, Relabel, Tally};

/// How much of a line an error shows, in characters.
const SHOWN: usize = 200;

/// A family with its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge`, `histogram`, `summary` or `untyped`.
    pub kind: String,
    pub help: String,
    /// In the order of the page.
    pub samples: Vec<Reading>,
}

/// A sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The family's name; of a histogram's or summary's, one with `_bucket`, `_sum` or `_count` behind it.
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
    TooLong(#[from] PageTooLong),
    /// The page says something that is not read out of it.
    #[error("{lines} of the {samples} samples cannot be read without loss, of which the first is: {first}")]
    Lost {
        lines: usize,
        samples: usize,
        first: String,
    },
}

/// The families of a page that are asked for, sorted by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    pub families: Vec<Family>,
    /// What was left out before anything was read, because it is no sample that Prometheus would take.
    pub tally: Tally,
}

impl Readings {
    /// Reads the families of a page that a filter fits.
    pub fn read(body: &[u8], filter: &Filter) -> Result<Self, ReadingError> {
        let (page, tally) = select(body, filter)?;
        let page = String::from_utf8_lossy(&page);
        let mut families: Vec<Family> = Vec::new();
        let mut help = String::new();
        let (mut samples, mut lost, mut first) = (0, 0, None);
        for line in page.lines() {
            if let Some(text) = line.strip_prefix("# HELP ") {
                help = text.split_once(' ').map_or("", |(_, help)| help).to_string();
            } else if let Some(text) = line.strip_prefix("# TYPE ") {
                let (name, kind) = text.split_once(' ').unwrap_or((text, ""));
                families.push(Family {
                    name: name.to_string(),
                    kind: kind.to_string(),
                    help: std::mem::take(&mut help),
                    samples: Vec::new(),
                });
            } else {
                samples += 1;
                // Each family begins with its TYPE.
                match (reading(line), families.last_mut()) {
                    (Some(reading), Some(family)) => family.samples.push(reading),
                    _ => {
                        lost += 1;
                        first.get_or_insert(line);
                    }
                }
            }
        }
        // Our own count of the same page, by its lexer.
        let counted = promtext::count_samples(page.as_bytes());
        if lost == 0 && counted == samples {
            return Ok(Self { families, tally });
        }
        Err(ReadingError::Lost {
            lines: lost.max(counted.abs_diff(samples)),
            samples: counted,
            first: first.unwrap_or_default().chars().take(SHOWN).collect(),
        })
    }

    /// The value of the only sample of a name that has these labels, where it is a number at all.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let family = self.families.iter().find(|family| family.name == name)?;
        let fits = |reading: &&Reading| {
            labels
                .iter()
                .all(|(label, value)| reading.label(label) == Some(value))
        };
        let mut fitting = family.samples.iter().filter(fits);
        let (only, none) = (fitting.next()?, fitting.next());
        (none.is_none() && only.value.is_finite()).then_some(only.value)
    }
}

/// The families of a page that a filter fits, each whole, sorted by name, every value as it was written.
pub fn select(body: &[u8], filter: &Filter) -> Result<(Vec<u8>, Tally), PageTooLong> {
    let page = Page::index(body.to_vec(), Relabel::default())?;
    let tally = page.tally();
    Ok((Merge::new(vec![page], filter).into_bytes(), tally))
}

/// Reads a line that is in the one form that every reader takes; `None` where something of it is lost.
fn reading(line: &str) -> Option<Reading> {
    let scrape = Scrape::parse(iter::once(Ok(line.to_string()))).ok()?;
    let mut samples = scrape.samples.into_iter();
    let (Some(sample), None) = (samples.next(), samples.next()) else {
        return None;
    };
    // Without its TYPE every sample is of this kind.
    let Value::Untyped(value) = sample.value else {
        return None;
    };
    let rest = line.strip_prefix(sample.metric.as_str())?;
    let written = match rest.strip_prefix('{') {
        // The last: a value may have one in it.
        Some(rest) => rest.rsplit_once('}')?.0,
        None => "",
    };
    let mut labels: Vec<_> = sample
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    labels.sort();
    // Each of them stands there as it was read, and nothing but they and the commas between them.
    let parts: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    let length = parts.iter().map(String::len).sum::<usize>() + parts.len().saturating_sub(1);
    if length != written.len() || !parts.iter().all(|part| written.contains(part.as_str())) {
        return None;
    }
    for (_, value) in &mut labels {
        *value = unescape(value);
    }
    Some(Reading {
        name: sample.metric,
        labels,
        value,
    })
}

/// Resolves the three escapes of the format.
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

    const GO: &[u8] = include_bytes!("../../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
    const RUST: &[u8] = include_bytes!("../../../crates/promtext/tests/fixtures/kata-3.30-rs/metrics.txt");

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
            assert_eq!(
                (readings.tally.samples, readings.tally.lost),
                (lines(page).len(), 0)
            );
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
        assert!(summary.help.starts_with("A summary of the wall-time pause"));
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
    fn what_would_be_lost_is_an_error_and_nothing_is_read() {
        for line in [
            "a:b 1",
            "a{x=\"}\"} 1",
            "a{x=\"1,2\"} 1",
            "a{x=\"1=2\"} 1",
            "a{x=\"he said \\\"yes\\\"\"} 1",
            "a{x=\"\\\"\"} 1",
            "a{x=\",y=\"} 1",
        ] {
            let page = format!("fine 1\n{line}\n");
            match read(&page) {
                Err(ReadingError::Lost {
                    lines,
                    samples,
                    first,
                }) => {
                    assert_eq!((lines, samples, first.as_str()), (1, 2, line));
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_the_format_allows_beside_is_read() {
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
            let _ = Readings::read(&page, &Filter::default());
        }

        /// Whatever a label says: it is read as it is, or the reading fails.
        #[test]
        fn a_label_is_read_right_or_not_at_all(value in "[a,=}{\"\\\\ #é\n]{0,8}", other in "[a,=}\"\\\\]{0,4}") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let page = format!("m{{k=\"{}\",z=\"{}\"}} 1\n", escape(&value), escape(&other));
            if let Ok(readings) = read(&page) {
                let sample = &readings.families[0].samples[0];
                prop_assert_eq!(sample.label("k"), Some(value.as_str()));
                prop_assert_eq!(sample.label("z"), Some(other.as_str()));
                prop_assert_eq!(sample.labels.len(), 2);
            }
        }
    }
}
