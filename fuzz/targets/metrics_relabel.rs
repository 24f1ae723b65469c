//! A label that is added and taken away again gives the text back, and merging what is merged changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promtext::{Filter, Merge, Page, Relabel};

const NAME: &str = "zz_added";
const LABEL: &str = "zz_added=\"x\"";

fn merged(body: &[u8], relabel: Relabel) -> Vec<u8> {
    let page = Page::read(body.to_vec(), relabel).expect("a short page");
    Merge::new(vec![page], &Filter::default()).into_bytes()
}

fuzz_target!(|data: &[u8]| {
    if data.windows(NAME.len()).any(|part| part == NAME.as_bytes()) {
        return;
    }
    let plain = String::from_utf8(merged(data, Relabel::default())).expect("text");
    let labelled =
        String::from_utf8(merged(data, Relabel::new([(NAME, "x")]).expect("a label"))).expect("text");
    let mut stripped = String::new();
    for line in labelled.split_inclusive('\n') {
        if line.starts_with('#') {
            stripped.push_str(line);
            continue;
        }
        let label = line.find(LABEL).expect("each sample has the label");
        let (before, after) = (&line[..label], &line[label + LABEL.len()..]);
        match (before.strip_suffix(','), before.strip_suffix('{')) {
            (Some(before), _) => stripped.extend([before, after]),
            (None, Some(name)) => {
                stripped.extend([name, after.strip_prefix('}').expect("the end of the labels")])
            }
            (None, None) => panic!("{line}"),
        }
    }
    assert_eq!(stripped, plain);
    let again = merged(plain.as_bytes(), Relabel::default());
    assert_eq!(String::from_utf8(again).expect("text"), plain);
});
