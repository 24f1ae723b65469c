//! The whole of it, against a slow reading of the same format written for this, and against promtool.

mod hostile;
mod naive;

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use self::hostile::{body, pages};
use super::{Filter, Kind, Merge, Page, Relabel, Value, Writer, count_samples};

const GO: &str = include_str!("../../tests/fixtures/kata-3.30-go/metrics.txt");
const RUST: &str = include_str!("../../tests/fixtures/kata-3.30-rs/metrics.txt");

/// Fails if `promtool check metrics` finds an error in the page; what it calls advice is none. Returns the
/// advice.
fn promtool(page: &[u8]) -> String {
    if !test_needs::can_check_with("promtool") {
        return String::new();
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It reads all before it says anything.
    stdin.write_all(page).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(
        output.status.code(),
        Some(1),
        "{said}\n{}",
        String::from_utf8_lossy(page)
    );
    said
}

fn joined(pages: Vec<Page>) -> Vec<u8> {
    Merge::new(pages, &Filter::default()).into_bytes()
}

fn lines(page: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(page).unwrap().lines()
}

/// Many sandboxes of both kinds: each of their samples is served once, with its labels and as it was written,
/// and in order.
#[test]
fn recorded_pages_are_joined_exactly() {
    let sandboxes: Vec<_> = (0..20)
        .map(|at| (format!("{at:064x}"), if at % 3 == 0 { RUST } else { GO }))
        .collect();
    let relabel = |id: &str| Relabel::kata(id, "7c312b48", "we\"b", "shop");
    let pages = sandboxes
        .iter()
        .map(|(id, body)| Page::index(*body, relabel(id)).unwrap())
        .collect();
    let page = joined(pages);

    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (id, body) in &sandboxes {
        let labels = format!(r#"sandbox_id="{id}",cri_uid="7c312b48",cri_name="we\"b",cri_namespace="shop""#);
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let prefix = if line.starts_with("go_") || line.starts_with("process_") {
                "kata_shim_"
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
    let served: Vec<_> = lines(&page).filter(|line| !line.starts_with('#')).collect();
    assert_eq!(served.len(), 13 * 655 + 7 * 346);
    for (id, mut expected) in expected {
        let mut own: Vec<_> = served.iter().copied().filter(|line| line.contains(id)).collect();
        // The order of families is not the sandbox's, that within a family is: a stable sort by family shows
        // it.
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
    let advice = promtool(&page);
    assert!(!advice.contains("no help text"), "{advice}");
}

#[test]
fn the_recordings_types_and_helps_are_kept() {
    let page = joined(vec![Page::index(GO, Relabel::kata("", "", "", "")).unwrap()]);
    let mut expected: Vec<_> = GO
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let (head, name) = line.split_at("# HELP ".len());
            let ours = name.starts_with("go_") || name.starts_with("process_");
            format!("{head}{}{name}", if ours { "kata_shim_" } else { "" })
        })
        .collect();
    let mut served: Vec<_> = lines(&page)
        .filter(|line| line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    assert_eq!(served.len(), 144);
    expected.sort();
    served.sort();
    for (served, expected) in served.iter().zip(&expected) {
        assert_eq!(served, expected);
    }
}

/// Without relabelling, a page that is in order comes out as it went in.
#[test]
fn a_joined_page_joined_again_is_itself() {
    let once = joined(vec![
        Page::index(GO, Relabel::kata("a", "b", "c", "d")).unwrap(),
        Page::index(RUST, Relabel::kata("b", "", "", "")).unwrap(),
    ]);
    let twice = joined(vec![Page::index(once.clone(), Relabel::default()).unwrap()]);
    assert_eq!(once, twice);
}

#[test]
fn families_of_our_own_are_among_the_sandboxes() {
    let mut writer = Writer::default();
    let mut up = writer.family("kata_guest_up", Kind::Gauge, "Whether the sandbox answered.");
    up.sample(&[("sandbox_id", "a")], true);
    // A name that the sandbox has as well.
    let mut load = writer.family("kata_guest_load", Kind::Counter, "Ours.");
    load.sample(&[("node", "n")], Value::Nanoseconds(5));
    let page = joined(vec![
        writer.page().unwrap(),
        Page::index(RUST, Relabel::default().label("sandbox_id", "a")).unwrap(),
    ]);
    naive::check_page(&page).unwrap();
    promtool(&page);
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

/// What prometheus-parse 0.2.5 loses is counted here, and served.
#[test]
fn samples_that_others_lose_are_kept() {
    let body = "# TYPE a:b gauge\na:b 1\na:b{c=\"}\"} 2\nd{} 3\ne {f=\"g\"} 4\nh{i=\"\\\\ \\\" \\n\"} 5\n\
                # TYPE s summary\ns_sum 6\ns_count 18446744073709551615\n#\n";
    assert_eq!(count_samples(body.as_bytes()), 7);
    let page = joined(vec![
        Page::index(body, Relabel::default().label("id", "x")).unwrap(),
    ]);
    promtool(&page);
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
        assert!(lines(&page).any(|served| served == line), "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Every series that Prometheus reads is served once, with its value as written, and nothing else is; and
    /// the page is valid to the letter.
    #[test]
    fn hostile_pages_are_joined_as_slowly_read(pages in pages()) {
        let page = joined(pages.iter().map(hostile::Hostile::page).collect());
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
        let page = Page::index(body.clone(), Relabel::default()).unwrap();
        prop_assert!(count_samples(&body) >= page.tally().samples);
        prop_assert_eq!(count_samples(&body), naive::count(&body));
    }

    #[test]
    fn no_bytes_do_harm(bodies in prop::collection::vec(any::<Vec<u8>>(), 0..4)) {
        let page = |body: Vec<u8>| Page::index(body, Relabel::kata("a", "b", "c", "d")).unwrap();
        naive::check_page(&joined(bodies.into_iter().map(page).collect())).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A recording in which bytes have changed.
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
        let page = Page::index(body, Relabel::default().label("id", "one")).unwrap();
        prop_assert_eq!((page.tally().samples, page.tally().lost), (kept.len(), lost));
        let found = naive::check_page(&joined(vec![page])).map_err(TestCaseError::fail)?;
        prop_assert_eq!(found, kept);
    }

    #[test]
    fn promtool_takes_what_hostile_pages_become(pages in pages()) {
        promtool(&joined(pages.iter().map(hostile::Hostile::page).collect()));
    }
}
