//! Pages that are like one before.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::page::{Page, PageTooLong};
use super::relabel::Relabel;

/// How many pages are kept for comparing: those of two versions of Kata, and some of containers.
const KEPT: usize = 8;

/// The longest page that is kept, in bytes.
const KEPT_LENGTH: usize = 256 << 10;

/// Reads pages as [`Page::index`] does, and in much less time those that differ from one that it has read in the
/// values of their samples alone. A sandbox's pages do, from one scrape to the next, and so do those of sandboxes of
/// the same kind.
#[derive(Debug, Default)]
pub struct PageReader {
    /// The one that was of use last is the first.
    kept: Mutex<Vec<Page>>,
}

impl PageReader {
    /// Reads `body` for being served with the changes that `relabel` says.
    pub fn read(&self, body: impl Into<Bytes>, relabel: Relabel) -> Result<Page, PageTooLong> {
        let body: Bytes = body.into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let like = |(place, page): (usize, &Page)| Some((place, page.like_this(&body, &relabel)?));
        if let Some((place, page)) = kept.iter().enumerate().find_map(like) {
            kept.get_mut(..=place).unwrap_or_default().rotate_right(1);
            return Ok(page);
        }
        let page = Page::index(body, relabel)?;
        if page.is_simple() && page.len() <= KEPT_LENGTH {
            kept.truncate(KEPT - 1);
            kept.insert(0, page.clone());
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filter, Merge};
    use super::*;
    use proptest::prelude::*;

    fn relabel(id: &str) -> Relabel {
        Relabel::kata(id, "u", "n", "s")
    }

    /// What is served of a page.
    fn served(page: Page) -> (super::super::Tally, String) {
        let tally = page.tally();
        let bytes = Merge::new(vec![page], &Filter::default()).into_bytes();
        (tally, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads a body with a reader that knows another one, and without.
    fn both(known: &str, body: &str) -> [(super::super::Tally, String); 2] {
        let reader = PageReader::default();
        reader.read(known.to_string(), relabel("known")).unwrap();
        let read = reader.read(body.to_string(), relabel("id")).unwrap();
        [read, Page::index(body.to_string(), relabel("id")).unwrap()].map(served)
    }

    fn is_known(known: &str, body: &str) -> bool {
        let known = Page::index(known.to_string(), relabel("known")).unwrap();
        known
            .like_this(&Bytes::from(body.to_string()), &relabel("id"))
            .is_some()
    }

    const KNOWN: &str = "# HELP x X\n# TYPE x gauge\nx{a=\"1\"} 1\nx 22\n\ngo_y 1e3\n# end\n";

    #[test]
    fn other_values_are_read_where_they_are() {
        let body = "# HELP x X\n# TYPE x gauge\nx{a=\"1\"} -1234.5\nx NaN\n\ngo_y 7\n# end\n";
        assert!(is_known(KNOWN, body));
        let [read, indexed] = both(KNOWN, body);
        assert_eq!(read, indexed);
        assert!(read.1.contains("x{a=\"1\",sandbox_id=\"id\""), "{}", read.1);
        assert!(
            read.1.contains("} -1234.5\n") && read.1.contains("kata_shim_go_y{"),
            "{}",
            read.1
        );
    }

    #[test]
    fn what_differs_otherwise_is_read_anew() {
        for (what, by) in [
            ("# HELP x X", "# HELP x Y"),
            ("gauge", "counter"),
            ("a=\"1\"", "a=\"2\""),
            ("} 1\n", "} 1 5\n"),
            ("} 1\n", "} \n"),
            ("} 1\n", "} 1 \n"),
            ("} 1\n", "}  1\n"),
            ("} 1\n", "} one\n"),
            ("x 22\n", ""),
            ("x 22\n", "x 22\nx 22\n"),
            ("x 22\n", "x{b=\"\"} 22\n"),
            ("# end\n", ""),
            ("# end\n", "# end"),
            ("# end\n", "# end\nz 1\n"),
            ("go_y 1e3\n# end\n", "go_y 1e3"),
        ] {
            let body = KNOWN.replace(what, by);
            assert_ne!(body, KNOWN);
            assert!(!is_known(KNOWN, &body), "{body}");
            let [read, indexed] = both(KNOWN, &body);
            assert_eq!(read, indexed, "{body}");
        }
        let long = KNOWN.replace("} 1\n", &format!("}} {}1\n", "0".repeat(super::super::MAX_LINE)));
        let [read, indexed] = both(KNOWN, &long);
        assert_eq!(read, indexed);
        assert_eq!(read.0.lost, 1);
    }

    /// What is done to a page with other labels is not what is to be done to this one.
    #[test]
    fn other_labels_are_another_page() {
        let reader = PageReader::default();
        let body = "x{cri_uid=\"guest\"} 1\n";
        let plain = reader.read(body, Relabel::default()).unwrap();
        assert_eq!(served(plain).1.lines().last(), Some("x{cri_uid=\"guest\"} 1"));
        let kata = reader.read(body, relabel("id")).unwrap();
        let index = Page::index(body, relabel("id")).unwrap();
        assert_eq!(served(kata), served(index));
        let prefixed = |prefix: &'static str| {
            let relabel = Relabel::default().prefix(prefix, &["x"]);
            served(reader.read(body, relabel).unwrap()).1
        };
        assert!(prefixed("a_").ends_with("a_x{cri_uid=\"guest\"} 1\n"));
        assert!(prefixed("b_").ends_with("b_x{cri_uid=\"guest\"} 1\n"));
    }

    #[test]
    fn few_pages_are_kept_and_no_long_ones() {
        let reader = PageReader::default();
        for at in 0..3 * KEPT {
            reader.read(format!("x{at} 1\n"), Relabel::default()).unwrap();
        }
        let long = "x 1\n".to_string() + &"#\n".repeat(KEPT_LENGTH);
        reader.read(long, Relabel::default()).unwrap();
        reader.read("not simple", Relabel::default()).unwrap();
        let kept = reader.kept.lock().unwrap();
        assert_eq!(kept.len(), KEPT);
        assert!(kept.iter().all(|page| page.len() < 10));
    }

    proptest! {
        /// Whatever is done to a page, a reader that knows it reads the same as one that does not.
        #[test]
        fn it_makes_no_difference(at in 0..KNOWN.len(), to in 0..KNOWN.len(), by in "[ -~\n]{0,6}") {
            let mut body = KNOWN.to_string();
            body.replace_range(at.min(to)..at.max(to), &by);
            let [read, indexed] = both(KNOWN, &body);
            prop_assert_eq!(read, indexed);
        }

        #[test]
        fn nor_does_another_value(value in "[-+.0-9eEinfaN ]{0,8}", place in 0..3_usize) {
            let old = ["} 1\n", "x 22\n", "go_y 1e3\n"][place];
            let (head, _) = old.rsplit_once(' ').unwrap();
            let body = KNOWN.replace(old, &format!("{head} {value}\n"));
            let [read, indexed] = both(KNOWN, &body);
            prop_assert_eq!(read, indexed);
        }
    }
}
