//! A page of metrics, and where everything in it is.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;

use crate::fault::{Error, MAX_LINE, MAX_PAGE, Tally};
use crate::index::{Index, index};
use crate::layout::{Layout, Span};
use crate::number::is_float;
use crate::relabel::Relabel;

/// Initial room for each value with its blank and line feed, in bytes. They have five on average.
const VALUE: usize = 8;

/// The metrics of one source: their text as it came, and an index of it.
///
/// ```
/// use promtext::{Page, Relabel};
///
/// let page = Page::read("# TYPE load gauge\nload{cpu=\"0\"} 0.090000003\nwhat is this\n", Relabel::default())?;
/// let tally = page.tally();
/// assert_eq!((tally.samples, tally.lost), (1, 1));
/// assert_eq!(tally.first.unwrap().to_string(), "line 3: no valid value");
/// # Ok::<(), promtext::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Page {
    lines: Arc<Lines>,
    /// Replace those in the lines.
    values: Option<Values>,
    relabel: Relabel,
    layout: Arc<Layout>,
    tally: Tally,
}

/// The lines of a page.
#[derive(Debug)]
struct Lines {
    body: Bytes,
    /// Samples that had to be rewritten: positions past the end of the body are in here.
    side: Vec<u8>,
    /// Each sample's line.
    samples: Vec<Span>,
}

/// The values of a page's samples, each with the blank before it and its line feed.
#[derive(Debug, Clone)]
struct Values {
    text: Vec<u8>,
    /// Where in the text each of them ends.
    ends: Vec<u32>,
}

impl Page {
    /// Reads `body`, in one pass, to be written with the changes of `relabel`.
    ///
    /// A body is not refused for what is in it. Lines for which Prometheus would refuse the whole page are left out;
    /// [`tally`](Self::tally) says how many, and which is the first. The only error is [`Error::PageTooLong`].
    pub fn read(body: impl Into<Bytes>, relabel: Relabel) -> Result<Page, Error> {
        let body: Bytes = body.into();
        if body.len() > MAX_PAGE {
            return Err(Error::PageTooLong(body.len()));
        }
        let Index {
            side,
            samples,
            layout,
            tally,
        } = index(&body, &relabel);
        Ok(Page {
            lines: Arc::new(Lines { body, side, samples }),
            values: None,
            relabel,
            layout: Arc::new(layout),
            tally,
        })
    }

    /// Reads a body that differs from this page's only in the values of its samples; `None` if it differs otherwise. The
    /// new page shares everything else with this one, which must be [simple](Self::is_simple).
    ///
    /// Kept beside [`index`]: it takes a fifth of its time, and of the memory a page of 49 KB keeps 8 KB.
    pub(crate) fn like_this(&self, body: &[u8], relabel: &Relabel) -> Option<Page> {
        if !relabel.is_like(&self.relabel) {
            return None;
        }
        let Lines {
            body: ours, samples, ..
        } = &*self.lines;
        let mut values = Values {
            text: Vec::with_capacity(samples.len() * VALUE),
            ends: Vec::with_capacity(samples.len()),
        };
        let (mut rest, mut done) = (body, 0);
        for (sample, &value) in samples.iter().zip(&self.layout.values) {
            // Comments before the sample, its name and its labels, and the blank before the value.
            let same = ours.get(done..(sample.start + value) as usize)?;
            let after = rest.strip_prefix(same)?;
            let end = memchr(b'\n', after)?;
            if !is_float(after.get(..end)?) || value as usize + end > MAX_LINE {
                return None;
            }
            values
                .text
                .extend_from_slice(rest.get(same.len() - 1..same.len() + end + 1)?);
            values.ends.push(u32::try_from(values.text.len()).ok()?);
            rest = after.get(end + 1..)?;
            done = sample.end as usize;
        }
        (rest == ours.get(done..)?).then(|| Page {
            lines: self.lines.clone(),
            values: Some(values),
            relabel: relabel.clone(),
            layout: self.layout.clone(),
            tally: self.tally,
        })
    }

    /// Whether every line is kept, and none was rewritten.
    pub(crate) fn is_simple(&self) -> bool {
        self.lines.side.is_empty() && self.tally.lost == 0 && self.tally.first.is_none()
    }

    /// What was found.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How much memory the page takes, in bytes, without what it shares with another page.
    ///
    /// ```
    /// use promtext::{PageReader, Relabel};
    ///
    /// let reader = PageReader::default();
    /// let first = reader.read("load{cpu=\"0\"} 0.5\n", Relabel::default())?;
    /// let next = reader.read("load{cpu=\"0\"} 0.7\n", Relabel::default())?;
    /// assert!(next.memory() < first.memory());
    /// # Ok::<(), promtext::Error>(())
    /// ```
    pub fn memory(&self) -> usize {
        match &self.values {
            Some(values) => values.text.capacity() + size_of_val(&values.ends[..]),
            None => {
                let Lines { body, side, samples } = &*self.lines;
                body.len() + side.len() + size_of_val(&samples[..]) + self.layout.size()
            }
        }
    }

    /// The length of its body in bytes.
    pub(crate) fn len(&self) -> usize {
        self.lines.body.len()
    }

    pub(crate) fn relabel(&self) -> &Relabel {
        &self.relabel
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// A sample in the plain form: its name and labels; and its value, from the blank before it to the line feed.
    pub(crate) fn sample(&self, place: u32) -> Option<(&[u8], &[u8])> {
        let place = place as usize;
        let line = self.lines.get(place)?;
        let value = *self.layout.values.get(place)? as usize;
        let (series, rest) = line.split_at_checked(value.checked_sub(1)?)?;
        match &self.values {
            None => Some((series, rest)),
            Some(values) => Some((series, values.get(place)?)),
        }
    }
}

impl Lines {
    fn get(&self, place: usize) -> Option<&[u8]> {
        let span = self.samples.get(place)?;
        let (start, end) = (span.start as usize, span.end as usize);
        match start.checked_sub(self.body.len()) {
            None => self.body.get(start..end),
            Some(start) => self.side.get(start..end - self.body.len()),
        }
    }
}

impl Values {
    fn get(&self, place: usize) -> Option<&[u8]> {
        let start = match place.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start as usize..*self.ends.get(place)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, MAX_NAMES};
    use crate::kind::Kind;

    fn page(body: impl Into<Bytes>) -> Page {
        Page::read(body, Relabel::default()).unwrap()
    }

    fn tally(body: impl Into<Bytes>) -> (usize, usize, Option<(usize, Fault)>) {
        let Tally { samples, lost, first } = page(body).tally();
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
            tally("# TYPE \"x.y\" gauge\n{\"x.y\"} 1\nx 1\n"),
            (1, 1, Some((2, Fault::QuotedName)))
        );
        assert_eq!(tally("# TYPE x what\nx 1\n?\n"), (1, 1, Some((3, Fault::NoName))));
        assert_eq!(
            tally("x 1\n\t# TYPE x what\n# HELP {\n"),
            (1, 0, Some((2, Fault::UnknownType)))
        );
        let fault = page("x 1\n{\n").tally().first.unwrap();
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
    fn series_are_compared_with_their_changes() {
        let relabel = Relabel::new([("id", "a")]).unwrap().prefix("p_", ["x"]).unwrap();
        let body = "x 1\nx{id=\"a\"} 2\nx{id=\"b\"} 3\nx{exported_id=\"b\"} 4\np_x 5\np_x{id=\"c\"} 6\n";
        let tally = Page::read(body, relabel).unwrap().tally();
        assert_eq!((tally.samples, tally.lost), (3, 3));
    }

    #[test]
    fn runs_are_as_few_as_the_page_allows() {
        let page = page("# TYPE x gauge\nx{a=\"1\"} 1\nx{a=\"2\"} 2\ny 3\nx{a=\"3\"} 4\n# HELP z\n");
        let layout = page.layout();
        let names: Vec<_> = layout
            .names
            .iter()
            .map(|name| {
                let lines = |run: &Span| {
                    let lines = (run.start..run.end).map(|place| page.sample(place).unwrap());
                    lines
                        .map(|(series, rest)| [series, rest].concat())
                        .collect::<Vec<_>>()
                        .concat()
                };
                let runs: Vec<_> = layout.runs(name).iter().map(lines).collect();
                (layout.text(name.name), name.kind, runs)
            })
            .collect();
        let x = vec![
            b"x{a=\"1\"} 1\nx{a=\"2\"} 2\n".to_vec(),
            b"x{a=\"3\"} 4\n".to_vec(),
        ];
        assert_eq!(
            names,
            [
                (&b"x"[..], Some(Kind::Gauge), x),
                (b"y", None, vec![b"y 3\n".to_vec()]),
                (b"z", None, vec![]),
            ]
        );
    }

    #[test]
    fn the_index_of_a_recorded_page_is_small() {
        let body = include_str!("../tests/fixtures/kata-3.30-go/metrics.txt");
        let page = Page::read(body, Relabel::new([("id", "a"), ("uid", "b")]).unwrap()).unwrap();
        // Counted with grep: 799 lines, 144 of them comments.
        assert_eq!(
            page.tally(),
            Tally {
                samples: 655,
                lost: 0,
                first: None
            }
        );
        let own = size_of_val(&page.lines.samples[..]) + page.lines.side.len();
        assert!(own < body.len() / 5, "{own}");
        let shared = page.layout.size();
        assert!(shared < body.len() / 2, "{shared}");
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
        let page = Page::read(vec![0; MAX_PAGE + 1], Relabel::default());
        assert_eq!(
            page.map(|page| page.tally()),
            Err(Error::PageTooLong(MAX_PAGE + 1))
        );
    }
}
