//! Metrics text through read, relabel, merge and write, compared with the slow reader of promtext's tests: the page is
//! strictly valid, and nothing is lost or invented.
#![no_main]

#[allow(dead_code)]
#[path = "../../crates/promtext/tests/oracle/naive.rs"]
mod naive;

use std::collections::BTreeMap;

use fuzz::split;
use libfuzzer_sys::fuzz_target;
use promtext::{Filter, Merge, Page, Relabel, count_samples};

fuzz_target!(|data: &[u8]| {
    let (cut, bytes) = split(data);
    let cut = bytes.len() * usize::from(cut) / 255;
    let mut expected = BTreeMap::new();
    let mut pages = Vec::new();
    for (body, id) in [(&bytes[..cut], "one"), (&bytes[cut..], "two")] {
        let relabel = Relabel::new([("id", id)]).expect("a label");
        let relabel = relabel.prefix("shim_", ["go_"]).expect("a prefix");
        let page = Page::read(body.to_vec(), relabel).expect("a short page");
        let (kept, lost) = naive::read(body, &[("id", id)], true);
        assert_eq!((page.tally().samples, page.tally().lost), (kept.len(), lost));
        assert_eq!(count_samples(body), naive::count(body));
        for (series, number) in kept {
            expected.entry(series).or_insert(number);
        }
        pages.push(page);
    }
    let page = Merge::new(pages, &Filter::default()).into_bytes();
    let found = naive::check_page(&page).expect("a merged page is strictly valid");
    assert_eq!(found, expected);
});
