//! The library as a whole, compared with a simple slow reader and with promtool.

#![allow(clippy::restriction)] // A test may panic.

mod hostile;
mod naive;
mod promtool;

use promtext::{Filter, Kind, Merge, Page, Relabel, Value, Writer, count_samples};
use proptest::prelude::*;
use std::collections::BTreeMap;

use self::hostile::{body, pages};

const GO: &str = include_str!("../fixtures/kata-3.30-go/metrics.txt");
const RUST: &str = include_str!("../fixtures/kata-3.30-rs/metrics.txt");

/// Labels and a prefix.
fn shim() -> Relabel {
    let labels = Relabel::new([("id", "a"), ("name", "b")]).unwrap();
    labels.prefix("shim_", ["go_", "process_"]).unwrap()
}

fn merged(pages: Vec<Page>) -> Vec<u8> {
    Merge::new(pages, &Filter::default()).into_bytes()
}

fn lines(page: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(page).unwrap().lines()
}

/// Many pages of two kinds: each sample is written once, as it was, with its labels and in order.
#[test]
fn recorded_pages_are_merged_exactly() {
    let sources: Vec<_> = (0..20)
        .map(|at| (format!("{at:064x}"), if at % 3 == 0 { RUST } else { GO }))
        .collect();
    let relabel = |id: &str| {
        let labels = Relabel::new([("id", id), ("name", "we\"b")]).unwrap();
        labels.prefix("shim_", ["go_", "process_"]).unwrap()
    };
    let pages = sources
        .iter()
        .map(|(id, body)| Page::read(*body, relabel(id)).unwrap())
        .collect();
    let page = merged(pages);

    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (id, body) in &sources {
        let labels = format!(r#"id="{id}",name="we\"b""#);
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let prefix = if line.starts_with("go_") || line.starts_with("process_") {
                "shim_"
            } else {
                ""
            };
            let labelled = match line.rfind("} ") {
                Some(close) => format!("{prefix}{},{labels}{}", &line[..close], &line[close..]),
                None => format!(
                    "{prefix}{}{{{labels}}} {}",
                    line.split_once(' ').unwrap().0,
                    line.split_once(' ').unwrap().1
                ),
            };
            expected.entry(id).or_default().push(labelled);
        }
    }
    let written: Vec<_> = lines(&page).filter(|line| !line.starts_with('#')).collect();
    assert_eq!(written.len(), 13 * 655 + 7 * 346);
    for (id, mut expected) in expected {
        let mut own: Vec<_> = written.iter().copied().filter(|line| line.contains(id)).collect();
        // Families are in another order, samples within a family are not: a stable sort by family shows it.
        let family = |line: &str| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let of_histogram = name.contains("histogram") || name.contains("gc_duration");
            let cut = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|_| of_histogram));
            cut.unwrap_or(name).to_owned()
        };
        own.sort_by_key(|line| family(line));
        expected.sort_by_key(|line| family(line));
        assert_eq!(own, expected);
    }
    naive::check_page(&page).unwrap();
    let advice = promtool::check(&page);
    assert!(!advice.contains("no help text"), "{advice}");
}

#[test]
fn the_recordings_types_and_helps_are_kept() {
    let page = merged(vec![Page::read(GO, shim()).unwrap()]);
    let mut expected: Vec<_> = GO
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let (head, name) = line.split_at("# HELP ".len());
            let ours = name.starts_with("go_") || name.starts_with("process_");
            format!("{head}{}{name}", if ours { "shim_" } else { "" })
        })
        .collect();
    let mut written: Vec<_> = lines(&page)
        .filter(|line| line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    assert_eq!(written.len(), 144);
    expected.sort();
    written.sort();
    for (written, expected) in written.iter().zip(&expected) {
        assert_eq!(written, expected);
    }
}

#[test]
fn merging_a_merged_page_changes_nothing() {
    let once = merged(vec![
        Page::read(GO, shim()).unwrap(),
        Page::read(RUST, Relabel::new([("id", "b")]).unwrap()).unwrap(),
    ]);
    let twice = merged(vec![Page::read(once.clone(), Relabel::default()).unwrap()]);
    assert_eq!(once, twice);
}

#[test]
fn own_families_are_merged_with_others() {
    let mut writer = Writer::default();
    let mut up = writer.family("kata_guest_up", Kind::Gauge, "Whether the source answered.");
    up.sample(&[("sandbox_id", "a")], true);
    // The other page has this name too.
    let mut load = writer.family("kata_guest_load", Kind::Counter, "Ours.");
    load.sample(&[("node", "n")], Value::Nanoseconds(5));
    let page = merged(vec![
        Page::read(writer.into_text(), Relabel::default()).unwrap(),
        Page::read(RUST, Relabel::new([("sandbox_id", "a")]).unwrap()).unwrap(),
    ]);
    naive::check_page(&page).unwrap();
    promtool::check(&page);
    let load: Vec<_> = lines(&page)
        .filter(|line| line.contains("kata_guest_load"))
        .take(4)
        .collect();
    assert_eq!(
        load,
        [
            "# HELP kata_guest_load Ours.",
            "# TYPE kata_guest_load counter",
            "kata_guest_load{node=\"n\"} 0.000000005",
            "kata_guest_load{item=\"load1\",sandbox_id=\"a\"} 0",
        ]
    );
}

/// prometheus-parse 0.2.5 loses all of these.
#[test]
fn samples_that_others_lose_are_kept() {
    let body = "# TYPE a:b gauge\na:b 1\na:b{c=\"}\"} 2\nd{} 3\ne {f=\"g\"} 4\nh{i=\"\\\\ \\\" \\n\"} 5\n\
                # TYPE s summary\ns_sum 6\ns_count 18446744073709551615\n#\n";
    assert_eq!(count_samples(body.as_bytes()), 7);
    let page = merged(vec![
        Page::read(body, Relabel::new([("id", "x")]).unwrap()).unwrap(),
    ]);
    promtool::check(&page);
    for line in [
        "a:b{id=\"x\"} 1",
        "a:b{c=\"}\",id=\"x\"} 2",
        "d{id=\"x\"} 3",
        "e{f=\"g\",id=\"x\"} 4",
        "h{i=\"\\\\ \\\" \\n\",id=\"x\"} 5",
        "# TYPE s summary",
        "s_sum{id=\"x\"} 6",
        "s_count{id=\"x\"} 18446744073709551615",
    ] {
        assert!(lines(&page).any(|written| written == line), "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Every series that Prometheus reads is written once, with its value as it was, and nothing else is; and the page is
    /// strictly valid.
    #[test]
    fn hostile_pages_are_merged_as_the_slow_reader_says(pages in pages()) {
        let page = merged(pages.iter().map(hostile::Hostile::page).collect());
        let mut expected = BTreeMap::new();
        for hostile in &pages {
            let (kept, lost) = naive::read(&hostile.body, &hostile.labels, hostile.prefix);
            let tally = hostile.page().tally();
            prop_assert_eq!((tally.samples, tally.lost), (kept.len(), lost));
            for (series, number) in kept {
                expected.entry(series).or_insert(number);
            }
        }
        let found = naive::check_page(&page).map_err(TestCaseError::fail)?;
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn counting_agrees(body in body()) {
        let page = Page::read(body.clone(), Relabel::default()).unwrap();
        prop_assert!(count_samples(&body) >= page.tally().samples);
        prop_assert_eq!(count_samples(&body), naive::count(&body));
    }

    #[test]
    fn no_bytes_do_harm(bodies in prop::collection::vec(any::<Vec<u8>>(), 0..4)) {
        let page = |body: Vec<u8>| Page::read(body, shim()).unwrap();
        naive::check_page(&merged(bodies.into_iter().map(page).collect())).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A recording with some bytes changed.
    #[test]
    fn damaged_recordings_do_no_harm(
        damage in prop::collection::vec((0..RUST.len(), prop_oneof![any::<u8>(), Just(b'\n'), Just(b'"'), Just(b'\\')]), 0..200),
        end in 0..=RUST.len(),
    ) {
        let mut body = RUST.as_bytes().to_vec();
        for (at, byte) in damage {
            body[at] = byte;
        }
        body.truncate(end);
        let (kept, lost) = naive::read(&body, &[("id", "one")], false);
        let page = Page::read(body, Relabel::new([("id", "one")]).unwrap()).unwrap();
        prop_assert_eq!((page.tally().samples, page.tally().lost), (kept.len(), lost));
        let found = naive::check_page(&merged(vec![page])).map_err(TestCaseError::fail)?;
        prop_assert_eq!(found, kept);
    }

    #[test]
    fn promtool_accepts_merged_hostile_pages(pages in pages()) {
        promtool::check(&merged(pages.iter().map(hostile::Hostile::page).collect()));
    }
}
