//! Metrics as a table and as JSON.

use crate::readings::{Family, Reading};
use serde_json::{Map, Number, Value, json};

use crate::show::table::{Align, Table};
use crate::show::{csv, json};

/// A line a sample.
pub fn table(families: &[Family]) -> Vec<u8> {
    let mut table = Table::new([
        ("METRIC", Align::Left),
        ("TYPE", Align::Left),
        ("LABELS", Align::Left),
        ("VALUE", Align::Right),
    ]);
    for family in families {
        for reading in &family.samples {
            table.row([
                reading.name.as_str(),
                &family.kind,
                &labels(reading),
                &number(reading.value),
            ]);
        }
    }
    table.lines().into_bytes()
}

fn labels(reading: &Reading) -> String {
    let pairs: Vec<_> = reading
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(" ")
}

/// In full: a number that is cut is hard to compare.
fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_string(),
        f64::INFINITY => "+Inf".to_string(),
        f64::NEG_INFINITY => "-Inf".to_string(),
        _ => value.to_string(),
    }
}

/// A line a sample, as comma-separated values.
pub fn csv(families: &[Family]) -> Vec<u8> {
    let mut text = csv::line(["metric", "type", "labels", "value"]);
    for family in families {
        for reading in &family.samples {
            text += &csv::line([
                reading.name.as_str(),
                &family.kind,
                &labels(reading),
                &number(reading.value),
            ]);
        }
    }
    text.into_bytes()
}

/// An object a line: `{"name":…,"labels":{…},"value":…,"type":…}`.
pub fn json_lines(families: &[Family]) -> Vec<u8> {
    let mut lines = Vec::new();
    for family in families {
        for reading in &family.samples {
            let mut sample = sample(reading);
            if let Value::Object(sample) = &mut sample {
                sample.insert("type".to_string(), family.kind.as_str().into());
            }
            lines.append(&mut json::line(&sample));
        }
    }
    lines
}

/// `{"sandbox":…,"families":[{"name":…,"type":…,"help":…,"samples":[{"name":…,"labels":{…},"value":…}]}]}`; a family
/// without a help text has no `help`.
pub fn json(sandbox: &str, families: &[Family]) -> Vec<u8> {
    let families: Vec<Value> = families
        .iter()
        .map(|family| {
            let samples: Vec<Value> = family.samples.iter().map(sample).collect();
            let help = family.help.iter().map(|help| ("help", json!(help)));
            let rest = [
                ("name", json!(family.name)),
                ("type", json!(family.kind)),
                ("samples", samples.into()),
            ];
            help.chain(rest).collect()
        })
        .collect();
    json::line(&json!({"sandbox": sandbox, "families": families}))
}

fn sample(reading: &Reading) -> Value {
    let labels: Map<String, Value> = reading
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    json!({"name": reading.name, "labels": labels, "value": value(reading.value)})
}

/// Whole numbers without a fraction. JSON has no form for what is no finite number: a text, as Prometheus writes it.
fn value(value: f64) -> Value {
    // Up to here a float has every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return (value as i64).into();
    }
    Number::from_f64(value).map_or_else(|| number(value).into(), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readings::Readings;
    use promtext::Filter;

    const PAGE: &str = "# HELP load Load.\n# TYPE load gauge\nload{item=\"load1\"} 0.5\nload{item=\"a\\nb\"} NaN\n\
                        # TYPE big counter\nbig 1.8446744073707799e+19\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\n\
                        h_bucket{le=\"+Inf\"} 3\nh_sum 7.5\nh_count 3\n";

    fn families() -> Vec<Family> {
        Readings::read(PAGE.as_bytes(), &Filter::default())
            .unwrap()
            .families
    }

    #[test]
    fn a_line_a_sample() {
        let expected = "\
METRIC    TYPE       LABELS                      VALUE
big       counter              18446744073707799000
h_bucket  histogram  le=1                         2
h_bucket  histogram  le=+Inf                      3
h_sum     histogram                             7.5
h_count   histogram                               3
load      gauge      item=load1                 0.5
load      gauge      item=a\\nb                 NaN
";
        let shown = String::from_utf8(table(&families())).unwrap();
        let words = |text: &str| -> Vec<Vec<String>> {
            text.lines()
                .map(|line| line.split_whitespace().map(str::to_string).collect())
                .collect()
        };
        assert_eq!(words(&shown), words(expected), "{shown}");
    }

    #[test]
    fn a_line_a_sample_for_programs() {
        let csv = String::from_utf8(csv(&families())).unwrap();
        let expected = "metric,type,labels,value\nbig,counter,,18446744073707799000\nh_bucket,histogram,le=1,2\n\
                        h_bucket,histogram,le=+Inf,3\nh_sum,histogram,,7.5\nh_count,histogram,,3\n\
                        load,gauge,item=load1,0.5\nload,gauge,\"item=a\nb\",NaN\n";
        assert_eq!(csv, expected);
        let lines = json_lines(&families());
        let lines: Vec<Value> = lines
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 7);
        let expected = json!({"name": "load", "type": "gauge", "labels": {"item": "load1"}, "value": 0.5});
        assert_eq!(lines[5], expected);
    }

    #[test]
    fn json_for_pipelines() {
        let shown: Value = serde_json::from_slice(&json("s1", &families())).unwrap();
        assert_eq!(shown["sandbox"], "s1");
        assert_eq!(
            shown["families"][2],
            json!({"name": "load", "type": "gauge", "help": "Load.", "samples": [
                {"name": "load", "labels": {"item": "load1"}, "value": 0.5},
                {"name": "load", "labels": {"item": "a\nb"}, "value": "NaN"},
            ]})
        );
        assert_eq!(shown["families"][0].get("help"), None);
        assert_eq!(shown["families"][1]["samples"][1]["labels"]["le"], "+Inf");
        assert_eq!(shown["families"][1]["samples"][0]["value"].to_string(), "2");
        // As text: the reader above rounds.
        let text = String::from_utf8(json("s1", &families())).unwrap();
        assert!(text.contains("\"value\":1.8446744073707799e+19"), "{text}");
    }
}
