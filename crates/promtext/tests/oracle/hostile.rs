//! Pages from a malicious source. There are few names, labels and values, so that they collide.

use proptest::prelude::*;
use proptest::sample::select;

use promtext::{Page, Relabel};

type Words = &'static [&'static str];

/// Mostly a good one, so that what consists of several is not always invalid.
fn mostly(good: Words, bad: Words) -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![20 => select(good), 1 => select(bad)]
}

const NAMES: Words = &[
    "x",
    "x",
    "x",
    "x_sum",
    "x_count",
    "x_bucket",
    "x_sum_sum",
    "x_sum_bucket",
    "go_a",
    "shim_go_a",
    "a:b",
];
const KINDS: Words = &[
    "counter",
    "gauge",
    "histogram",
    "histogram",
    "summary",
    "summary",
    "untyped",
];
const BLANKS: Words = &[" ", "\t", "  "];
const NOTHING: Words = &[""];

fn label() -> impl Strategy<Value = String> {
    let name = mostly(
        &["a", "b", "le", "quantile", "id", "uid", "exported_id"],
        &["__name__", "a:b", "", "1a"],
    );
    let bound = select(&["0.5", "1", "+Inf"][..]);
    let text = mostly(
        &[
            "", "1", "one", "two", "}", ",", "\\\"", "\\\\", "\\n", "\\q", "é", "\0", " ", "#",
        ],
        &["\\", "\""],
    );
    let text = prop_oneof![1 => bound, 1 => text];
    let blank = || mostly(NOTHING, BLANKS);
    (blank(), name, blank(), blank(), text, blank())
        .prop_map(|(b1, name, b2, b3, text, b4)| format!("{b1}{name}{b2}={b3}\"{text}\"{b4}"))
}

fn sample() -> impl Strategy<Value = String> {
    let comma = mostly(&[","], &[" , ", "", ",,", "\t"]);
    let labels = prop::collection::vec((label(), comma), 0..4);
    let name = mostly(NAMES, &["", "1x", "é"]);
    let value = mostly(
        &["1", "-0.50", "1e3", "NaN", "+Inf", "18446744073709551615", ".5"],
        &["0x1", "1e999", "one", "", "+NaN", "1\r"],
    );
    let timestamp = mostly(
        &["", "", "", " 17"],
        &[" -5", " 99999999999999999999", " 1 2", " ", "\t1"],
    );
    let gap = mostly(&[" "], &["", "\t", "  "]);
    (
        mostly(NOTHING, BLANKS),
        name,
        mostly(NOTHING, BLANKS),
        any::<bool>(),
        labels,
        gap,
        value,
        timestamp,
    )
        .prop_map(|(start, name, blank, trailing, labels, gap, value, timestamp)| {
            let last = labels.len().wrapping_sub(1);
            let all = labels.iter().enumerate().map(|(at, (label, comma))| {
                let comma = if at != last || (trailing && at % 2 == 1) {
                    comma
                } else {
                    ""
                };
                format!("{label}{comma}")
            });
            let all: String = all.collect();
            let braces = if labels.is_empty() && !trailing {
                String::new()
            } else {
                format!("{{{all}}}")
            };
            format!("{start}{name}{blank}{braces}{gap}{value}{timestamp}")
        })
}

/// A line, or several that belong together.
fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = |line: String| vec![line.into_bytes()];
    let kind = (select(NAMES), mostly(KINDS, &["Histogram ", "info", ""]))
        .prop_map(move |(name, kind)| one(format!("# TYPE {name} {kind}")));
    let help = (
        select(NAMES),
        select(&["", "a", "\\n", "\\q", "\\", "\"é\" \0"][..]),
    )
        .prop_map(move |(name, text)| one(format!("# HELP {name} {text}{text}")));
    let histogram = select(NAMES).prop_map(|name| {
        [
            "_bucket{le=\"1\"} 1",
            "_bucket{le=\"+Inf\"} 2",
            "_sum 3",
            "_count 2",
        ]
        .map(|end| format!("{name}{end}").into_bytes())
        .to_vec()
    });
    let summary = select(NAMES).prop_map(|name| {
        ["{quantile=\"0.5\"} 1", "_sum 3", "_count 2"]
            .map(|end| format!("{name}{end}").into_bytes())
            .to_vec()
    });
    let garbage = prop::collection::vec(select(b" \t#{}\",=\\x1e.\r\0\xff\xc3TYPEHL".to_vec()), 0..12)
        .prop_map(|line| vec![line]);
    // Not UTF-8, and quoted names.
    let refused = select(vec![
        &b"x{a=\"\xff\"} 1"[..],
        b"{\"x.y\"} 1",
        b"x{\"a.b\"=\"1\"} 1",
        b"# TYPE \"x.y\" gauge",
    ])
    .prop_map(|line| vec![line.to_vec()]);
    prop_oneof![
        12 => sample().prop_map(one),
        6 => kind,
        2 => help,
        2 => histogram,
        2 => summary,
        1 => garbage,
        1 => refused,
    ]
}

/// A page.
pub fn body() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(lines(), 0..12), any::<bool>()).prop_map(|(lines, ended)| {
        let mut body = lines.concat().join(&b'\n');
        if ended {
            body.push(b'\n');
        }
        body
    })
}

/// A page, and its changes.
#[derive(Debug, Clone)]
pub struct Hostile {
    pub body: Vec<u8>,
    pub labels: Vec<(&'static str, &'static str)>,
    /// Whether `go_` gets the prefix `shim_`.
    pub prefix: bool,
}

impl Hostile {
    pub fn page(&self) -> Page {
        let mut relabel = Relabel::new(self.labels.iter().copied()).unwrap();
        if self.prefix {
            relabel = relabel.prefix("shim_", ["go_"]).unwrap();
        }
        Page::read(self.body.clone(), relabel).unwrap()
    }
}

pub fn pages() -> impl Strategy<Value = Vec<Hostile>> {
    let labels = select(vec![
        vec![],
        vec![("id", "one")],
        vec![("id", "two")],
        vec![("id", "one"), ("uid", "")],
        vec![("id", "two"), ("uid", "1")],
        vec![("uid", "\"\\\n")],
    ]);
    let page = (body(), labels, any::<bool>());
    prop::collection::vec(
        page.prop_map(|(body, labels, prefix)| Hostile { body, labels, prefix }),
        0..5,
    )
}
