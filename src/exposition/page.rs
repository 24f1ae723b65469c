//! One page of metrics and where in it everything is.

use bytes::Bytes;

use super::fault::LineFault;
use super::index::{Index, index};
use super::kind::Kind;
use super::relabel::Relabel;

/// The longest page that is read, in bytes. It is only what the index can count to: whoever fetches a page
/// has a lower limit.
pub const MAX_PAGE: usize = 512 << 20;

/// A page longer than [`MAX_PAGE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a page of {0} bytes is longer than {MAX_PAGE}")]
pub struct PageTooLong(pub usize);

/// The text of one source of metrics, held as it came, and an index of it (some 6 KB for Kata's 50 KB).
///
/// ```
/// use kata_runtime::exposition::{Page, Relabel};
///
/// let body = "# TYPE kata_guest_load gauge\nkata_guest_load{item=\"load1\"} 0.090000003\nwhat is this\n";
/// let page = Page::index(body, Relabel::kata("0ea1…", "7c31…", "web-0", "shop"))?;
/// assert_eq!(page.tally().samples, 1);
/// assert_eq!(page.tally().lost, 1);
/// # Ok::<(), kata_runtime::exposition::PageTooLong>(())
/// ```
#[derive(Debug)]
pub struct Page {
    body: Bytes,
    relabel: Relabel,
    index: Index,
}

/// What was found in a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples that are served.
    pub samples: usize,
    /// Lines that are neither blank nor a comment and are not served: not a sample that Prometheus reads, or
    /// a repeated one.
    pub lost: usize,
    /// The first line at fault. It may be a comment, which costs a family its type or its help and no sample.
    pub first: Option<LineFault>,
}

/// Bytes of a page, from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

/// What a page has under one name: samples, or a type and a help text, or both. Which family it belongs to is
/// not decided here, as that depends on the other pages.
#[derive(Debug)]
pub(super) struct Name {
    /// With its prefix, where it has one.
    pub name: Span,
    pub prefix: &'static str,
    pub kind: Option<Kind>,
    /// Escaped, not empty.
    pub help: Option<Span>,
    pub shape: Shape,
    /// Which of the page's runs.
    pub runs: Span,
}

/// What the samples of one name say of the two labels that histograms and summaries are made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape(u8);

impl Shape {
    /// There is a sample.
    pub const SAMPLES: Shape = Shape(1);
    /// There is one without `le`.
    pub const NO_LE: Shape = Shape(2);
    /// There is one with an `le` that is not a number. In a histogram that is a format error to Prometheus's
    /// Go client.
    pub const BAD_LE: Shape = Shape(4);
    /// There is one without `quantile`.
    pub const NO_QUANTILE: Shape = Shape(8);
    /// There is one with a `quantile` that is not a number: in a summary likewise.
    pub const BAD_QUANTILE: Shape = Shape(16);

    pub fn has(self, any: Shape) -> bool {
        self.0 & any.0 != 0
    }
}

impl std::ops::BitOr for Shape {
    type Output = Shape;

    fn bitor(self, other: Shape) -> Shape {
        Shape(self.0 | other.0)
    }
}

impl Page {
    /// Reads `body`, in one pass, for being served with the changes that `relabel` says.
    ///
    /// No body is refused for what is in it. Lines that Prometheus would refuse (and then all the page with
    /// them) are left out; [`tally`](Self::tally) says how many, and where the first is.
    pub fn index(body: impl Into<Bytes>, relabel: Relabel) -> Result<Page, PageTooLong> {
        let body: Bytes = body.into();
        if body.len() > MAX_PAGE {
            return Err(PageTooLong(body.len()));
        }
        let index = index(&body, &relabel);
        Ok(Page { body, relabel, index })
    }

    /// What was found.
    pub fn tally(&self) -> Tally {
        self.index.tally
    }

    pub(super) fn relabel(&self) -> &Relabel {
        &self.relabel
    }

    pub(super) fn names(&self) -> &[Name] {
        &self.index.names
    }

    /// The bytes at `span`, which never is on both sides of the end of the body.
    pub(super) fn text(&self, span: Span) -> &[u8] {
        slice(&self.body, &self.index.side, span)
    }

    /// Where the samples of a name are: whole lines, all plain, each with its line feed.
    pub(super) fn runs(&self, name: &Name) -> &[Span] {
        self.index
            .runs
            .get(name.runs.start as usize..name.runs.end as usize)
            .unwrap_or_default()
    }
}

/// The bytes at `span` of a body and what was written beside it.
pub(super) fn slice<'a>(body: &'a [u8], side: &'a [u8], span: Span) -> &'a [u8] {
    let (start, end) = (span.start as usize, span.end as usize);
    match start.checked_sub(body.len()) {
        None => body.get(start..end).unwrap_or_default(),
        Some(start) => side.get(start..end - body.len()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Fault, MAX_NAMES};
    use super::*;

    fn index(body: impl Into<Bytes>) -> Page {
        Page::index(body, Relabel::default()).unwrap()
    }

    fn tally(body: impl Into<Bytes>) -> (usize, usize, Option<(usize, Fault)>) {
        let Tally { samples, lost, first } = index(body).tally();
        (samples, lost, first.map(|first| (first.line, first.fault)))
    }

    #[test]
    fn lost_lines_are_counted_and_the_first_is_named() {
        assert_eq!(tally("x 1\n# TYPE x gauge\n\n# y\nx{a=\"1\"} 1"), (2, 0, None));
        assert_eq!(
            tally("\n# c\nx{a=\"1\n\"} 1\nx 1\ny\n"),
            (1, 3, Some((3, Fault::UnclosedLabel)))
        );
        assert_eq!(
            tally("# TYPE x what\nx 1\n?\n"),
            (1, 1, Some((1, Fault::UnknownType)))
        );
        let fault = index("x 1\n{\n").tally().first.unwrap();
        assert_eq!(fault.to_string(), "line 2: no metric name");
    }

    #[test]
    fn a_series_counts_once_however_it_is_written() {
        for again in [
            "x{a=\"1\",b=\"2\"} 9",
            "x{b=\"2\",a=\"1\"} 9",
            "x{a=\"1\",c=\"\",b=\"2\"} 9",
            "x {a = \"1\" b=\"2\",} 9 5",
            "x{a=\"1\",b=\"2\"} 9 1700000000000",
        ] {
            let found = tally(format!("x{{a=\"1\",b=\"2\"}} 1\n{again}\n"));
            assert_eq!(found, (1, 1, Some((2, Fault::RepeatedSeries))), "{again}");
        }
        for other in [
            "x{a=\"2\",b=\"1\"} 9",
            "x{a=\"1\"} 9",
            "x{a=\"1,b=2\"} 9",
            "y{a=\"1\",b=\"2\"} 9",
            "x{a=\"1\",b=\"2\",c=\"3\"} 9",
        ] {
            assert_eq!(
                tally(format!("x{{a=\"1\",b=\"2\"}} 1\n{other}\n")),
                (2, 0, None),
                "{other}"
            );
        }
        // An unknown escape is a backslash, and the same as an escaped one.
        assert_eq!(
            tally("x{a=\"\\q\"} 1\nx{a=\"\\\\q\"} 1\n"),
            (1, 1, Some((2, Fault::RepeatedSeries)))
        );
    }

    #[test]
    fn series_are_compared_as_they_are_served() {
        let relabel = Relabel::default().label("id", "a").prefix("p_", &["x"]);
        let body = "x 1\nx{id=\"a\"} 2\nx{id=\"b\"} 3\nx{exported_id=\"b\"} 4\np_x 5\np_x{id=\"c\"} 6\n";
        let tally = Page::index(body, relabel).unwrap().tally();
        assert_eq!((tally.samples, tally.lost), (3, 3));
    }

    #[test]
    fn runs_are_as_few_as_the_page_allows() {
        let page = index("# TYPE x gauge\nx{a=\"1\"} 1\nx{a=\"2\"} 2\ny 3\nx{a=\"3\"} 4\n# HELP z\n");
        let names: Vec<_> = page
            .names()
            .iter()
            .map(|name| {
                let runs: Vec<_> = page.runs(name).iter().map(|&run| page.text(run)).collect();
                (page.text(name.name), name.kind, runs)
            })
            .collect();
        let x = vec![&b"x{a=\"1\"} 1\nx{a=\"2\"} 2\n"[..], b"x{a=\"3\"} 4\n"];
        assert_eq!(
            names,
            [
                (&b"x"[..], Some(Kind::Gauge), x),
                (b"y", None, vec![b"y 3\n"]),
                (b"z", None, vec![]),
            ]
        );
    }

    #[test]
    fn the_index_of_a_recorded_page_is_small() {
        let body = include_str!("../../tests/fixtures/kata-3.30-go/metrics.txt");
        let page = Page::index(body, Relabel::kata("a", "b", "c", "d")).unwrap();
        // Counted with grep: 799 lines, 144 of them comments.
        assert_eq!(
            page.tally(),
            Tally {
                samples: 655,
                lost: 0,
                first: None
            }
        );
        let index =
            size_of_val(&page.index.names[..]) + size_of_val(&page.index.runs[..]) + page.index.side.len();
        assert!(index < body.len() / 5, "{index}");
    }

    #[test]
    fn further_names_than_the_limit_are_left_out() {
        let body: String = (0..MAX_NAMES + 5).map(|at| format!("x{at} 1\n")).collect();
        assert_eq!(
            tally(body + "x0{a=\"1\"} 1\n"),
            (MAX_NAMES + 1, 5, Some((MAX_NAMES + 1, Fault::TooManyNames)))
        );
    }

    #[test]
    fn a_longer_page_than_can_be_indexed_is_refused() {
        let page = Page::index(vec![0; MAX_PAGE + 1], Relabel::default());
        assert_eq!(page.map(|page| page.tally()), Err(PageTooLong(MAX_PAGE + 1)));
    }
}
