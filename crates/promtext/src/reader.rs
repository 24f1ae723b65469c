//! Pages that resemble an earlier one.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::fault::Error;
use crate::page::Page;
use crate::relabel::Relabel;

/// How many pages are kept for comparison: enough for a few kinds of exporters.
const KEPT: usize = 8;

/// The longest page that is kept, in bytes.
const KEPT_LENGTH: usize = 256 << 10;

/// Reads pages as [`Page::read`] does, and in a fifth of the time those that differ from a recent one only in the values
/// of their samples. An exporter's pages do, from one scrape to the next, and so do the pages of exporters of one kind.
/// Such pages share their text: each keeps only its values.
///
/// ```
/// use promtext::{Filter, Merge, PageReader, Relabel};
///
/// let reader = PageReader::default();
/// let mut pages = Vec::new();
/// for (id, body) in [("a", "up 1\n"), ("b", "up 0\n")] {
///     pages.push(reader.read(body, Relabel::new([("id", id)])?)?);
/// }
/// let merged = Merge::new(pages, &Filter::default()).into_bytes();
/// assert_eq!(merged, b"# TYPE up untyped\nup{id=\"a\"} 1\nup{id=\"b\"} 0\n");
/// # Ok::<(), promtext::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct PageReader {
    /// The most recently used first.
    kept: Mutex<Vec<Page>>,
}

impl PageReader {
    /// Reads `body`, to be written with the changes of `relabel`. The only error is [`Error::PageTooLong`].
    pub fn read(&self, body: impl Into<Bytes>, relabel: Relabel) -> Result<Page, Error> {
        let body: Bytes = body.into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let like = |(place, page): (usize, &Page)| Some((place, page.like_this(&body, &relabel)?));
        if let Some((place, page)) = kept.iter().enumerate().find_map(like) {
            kept.get_mut(..=place).unwrap_or_default().rotate_right(1);
            return Ok(page);
        }
        let page = Page::read(body, relabel)?;
        if page.is_simple() && page.len() <= KEPT_LENGTH {
            kept.truncate(KEPT - 1);
            kept.insert(0, page.clone());
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Filter, MAX_LINE, Merge, Tally};
    use proptest::prelude::*;

    fn relabel(id: &str) -> Relabel {
        Relabel::new([("id", id), ("uid", "u")])
            .unwrap()
            .prefix("shim_", ["go_"])
            .unwrap()
    }

    /// What is written of a page.
    fn written(page: Page) -> (Tally, String) {
        let tally = page.tally();
        let bytes = Merge::new(vec![page], &Filter::default()).into_bytes();
        (tally, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads a body with a reader that knows another one, and without.
    fn both(known: &str, body: &str) -> [(Tally, String); 2] {
        let reader = PageReader::default();
        reader.read(known.to_string(), relabel("known")).unwrap();
        let read = reader.read(body.to_string(), relabel("id")).unwrap();
        [read, Page::read(body.to_string(), relabel("id")).unwrap()].map(written)
    }

    fn is_known(known: &str, body: &str) -> bool {
        let known = Page::read(known.to_string(), relabel("known")).unwrap();
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
        assert!(read.1.contains("x{a=\"1\",id=\"id\""), "{}", read.1);
        assert!(
            read.1.contains("} -1234.5\n") && read.1.contains("shim_go_y{"),
            "{}",
            read.1
        );
    }

    #[test]
    fn other_differences_are_read_from_scratch() {
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
        let long = KNOWN.replace("} 1\n", &format!("}} {}1\n", "0".repeat(MAX_LINE)));
        let [read, indexed] = both(KNOWN, &long);
        assert_eq!(read, indexed);
        assert_eq!(read.0.lost, 1);
    }

    /// A known page with other added labels is of no use.
    #[test]
    fn other_labels_are_another_page() {
        let reader = PageReader::default();
        let body = "x{uid=\"guest\"} 1\n";
        let plain = reader.read(body, Relabel::default()).unwrap();
        assert_eq!(written(plain).1.lines().last(), Some("x{uid=\"guest\"} 1"));
        let labelled = reader.read(body, relabel("id")).unwrap();
        let index = Page::read(body, relabel("id")).unwrap();
        assert_eq!(written(labelled), written(index));
        let prefixed = |prefix: &str| {
            let relabel = Relabel::default().prefix(prefix, ["x"]).unwrap();
            written(reader.read(body, relabel).unwrap()).1
        };
        assert!(prefixed("a_").ends_with("a_x{uid=\"guest\"} 1\n"));
        assert!(prefixed("b_").ends_with("b_x{uid=\"guest\"} 1\n"));
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
        /// However a page changes, a reader that knows it reads the same as one that does not.
        #[test]
        fn knowing_a_page_makes_no_difference(at in 0..KNOWN.len(), to in 0..KNOWN.len(), by in "[ -~\n]{0,6}") {
            let mut body = KNOWN.to_string();
            body.replace_range(at.min(to)..at.max(to), &by);
            let [read, indexed] = both(KNOWN, &body);
            prop_assert_eq!(read, indexed);
        }

        #[test]
        fn other_values_make_no_difference(value in "[-+.0-9eEinfaN ]{0,8}", place in 0..3_usize) {
            let old = ["} 1\n", "x 22\n", "go_y 1e3\n"][place];
            let (head, _) = old.rsplit_once(' ').unwrap();
            let body = KNOWN.replace(old, &format!("{head} {value}\n"));
            let [read, indexed] = both(KNOWN, &body);
            prop_assert_eq!(read, indexed);
        }
    }
}
