//! Several pages as one, written piece by piece.

use foldhash::quality::RandomState;
use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::BuildHasher;

use crate::filter::Filter;
use crate::index::weigh;
use crate::layout::Span;
use crate::lexer::{Lexer, Line};
use crate::page::Page;
use crate::plan::{Family, Part, plan};

/// Writes several pages as one that Prometheus reads: each family once, sorted by name, with one TYPE line and at most
/// one HELP line, and in it the samples of each page in turn, in their order there.
///
/// The merged page is never held in memory: [`fill`](Self::fill) writes the next part of it into the caller's buffer.
/// Beside the pages, a merge takes 8 bytes for each name in each of them.
///
/// If pages disagree about a family, it gets the type that most of them give it, or `untyped` if some page has samples
/// that cannot be of that type. Its help is that of the first page that has one; without one it gets no HELP line. Of a
/// series that two pages have, added labels included, the first page's sample is written. So put the page that you trust
/// most, such as your own, first.
///
/// ```
/// use promtext::{Filter, Merge, Page, Relabel};
///
/// let one = Page::read("# TYPE up gauge\nup 1\n# TYPE load gauge\nload 0.50\n", Relabel::new([("id", "a")])?)?;
/// let two = Page::read("load{cpu=\"0\"} 1e-3\n", Relabel::new([("id", "b")])?)?;
/// let mut merge = Merge::new(vec![one, two], &Filter::default());
/// let (mut page, mut chunk) = (Vec::new(), Vec::new());
/// loop {
///     let more = merge.fill(&mut chunk, 64 << 10);
///     page.append(&mut chunk); // or send the chunk, and clear it
///     if !more {
///         break;
///     }
/// }
/// assert_eq!(
///     String::from_utf8_lossy(&page),
///     "# TYPE load gauge\nload{id=\"a\"} 0.50\nload{cpu=\"0\",id=\"b\"} 1e-3\n# TYPE up gauge\nup{id=\"a\"} 1\n"
/// );
/// # Ok::<(), promtext::Error>(())
/// ```
#[derive(Debug)]
pub struct Merge<P> {
    pages: Vec<P>,
    families: std::vec::IntoIter<Family>,
    /// The family that is being written, with the parts that are left.
    family: Option<Open>,
    /// What is left of the page that is being written, the next run last.
    runs: Vec<Run>,
    page: usize,
    hasher: RandomState,
    has_help: bool,
}

/// A family that is being written.
#[derive(Debug)]
struct Open {
    parts: std::vec::IntoIter<Part>,
    /// The hashes of the series written so far, if pages may have one in common.
    series: Option<HashSet<u64, RandomState>>,
}

/// Samples to be written, by their indices in the page.
#[derive(Debug, Clone, Copy)]
struct Run {
    samples: Span,
    prefixed: bool,
}

impl<P: Borrow<Page>> Merge<P> {
    /// Prepares a page with the families of `pages` that `filter` lets through.
    pub fn new(pages: Vec<P>, filter: &Filter) -> Self {
        let families = plan(&pages, filter).into_iter();
        Self {
            pages,
            families,
            family: None,
            runs: Vec::new(),
            page: 0,
            hasher: RandomState::default(),
            has_help: true,
        }
    }

    /// Leaves out the HELP lines, which are half of a short page.
    #[must_use]
    pub fn without_help(mut self) -> Self {
        self.has_help = false;
        self
    }

    /// Appends whole lines to `out` until it has at least `limit` bytes (it exceeds them by one line at most, or by the
    /// HELP and TYPE lines of a family), and returns `true`; or until the page ends, and returns `false`.
    pub fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        while out.len() < limit {
            if self.runs.is_empty() && !self.next_part() && !self.next_family(out) {
                return false;
            }
            self.write(out, limit);
        }
        true
    }

    /// The whole page at once, where it is known to be small.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.fill(&mut out, usize::MAX) {}
        out
    }

    /// Starts the next family; whether there is one.
    fn next_family(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(family) = self.families.next() else {
            return false;
        };
        let help = family
            .help
            .filter(|_| self.has_help)
            .and_then(|(page, span)| Some(self.pages.get(page)?.borrow().layout().text(span)));
        let kind = family.kind.word().as_bytes();
        for (keyword, text) in [(&b"# HELP "[..], help), (b"# TYPE ", Some(kind))] {
            if let Some(text) = text {
                for part in [keyword, &family.name, b" ", text, b"\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        let series = family.overlaps.then(HashSet::default);
        self.family = Some(Open {
            parts: family.parts.into_iter(),
            series,
        });
        true
    }

    /// Takes the runs of the open family in the next page that has some; whether there is one.
    fn next_part(&mut self) -> bool {
        let Some(Open { parts, .. }) = &mut self.family else {
            return false;
        };
        let Some(first) = parts.as_slice().first().copied() else {
            return false;
        };
        self.page = first.page as usize;
        let Some(page) = self.pages.get(self.page) else {
            return false;
        };
        let layout = page.borrow().layout();
        while let Some(part) = parts.as_slice().first().filter(|part| part.page == first.page) {
            if let Some(name) = layout.names.get(part.name as usize) {
                let prefixed = name.prefixed;
                let runs = layout.runs(name).iter();
                self.runs.extend(runs.map(|&samples| Run { samples, prefixed }));
            }
            parts.next();
        }
        self.runs
            .sort_unstable_by_key(|run| std::cmp::Reverse(run.samples));
        true
    }

    /// Writes lines of the next run until it ends, or `out` has `limit` bytes.
    fn write(&mut self, out: &mut Vec<u8>, limit: usize) {
        let Some(run) = self.runs.last_mut() else { return };
        let Some(page) = self.pages.get(self.page).map(Borrow::borrow) else {
            return;
        };
        let added = page.relabel().text();
        let prefix = if run.prefixed {
            page.relabel().prefix_text()
        } else {
            b""
        };
        let mut seen = self.family.as_mut().and_then(|family| family.series.as_mut());
        while run.samples.start < run.samples.end && out.len() < limit {
            let sample = page.sample(run.samples.start);
            run.samples.start += 1;
            let Some((series, rest)) = sample else { continue };
            let new = seen
                .as_deref_mut()
                .is_none_or(|seen| seen.insert(hash(&self.hasher, prefix, series, rest, page)));
            if new {
                relabelled(prefix, series, rest, added, out);
            }
        }
        if run.samples.start >= run.samples.end {
            self.runs.pop();
        }
    }
}

/// Writes a plain sample with labels added after its own.
fn relabelled(prefix: &[u8], series: &[u8], rest: &[u8], added: &[u8], out: &mut Vec<u8>) {
    out.reserve(prefix.len() + series.len() + added.len() + rest.len() + 2);
    out.extend_from_slice(prefix);
    if added.is_empty() {
        out.extend_from_slice(series);
        out.extend_from_slice(rest);
        return;
    }
    match series.strip_suffix(b"}") {
        Some(labelled) => {
            out.extend_from_slice(labelled);
            out.push(b',');
        }
        None => {
            out.extend_from_slice(series);
            out.push(b'{');
        }
    }
    out.extend_from_slice(added);
    out.push(b'}');
    out.extend_from_slice(rest);
}

/// A hash of the series of a plain sample of `page`, with its prefix and the added labels.
fn hash(hasher: &RandomState, prefix: &[u8], series: &[u8], rest: &[u8], page: &Page) -> u64 {
    let line = [series, rest.trim_ascii_end()].concat();
    let mut lexer = Lexer::new(&line);
    let Ok(Line::Sample(sample)) = lexer.read(&line) else {
        return 0;
    };
    let name = hasher.hash_one([prefix, sample.name].concat());
    let labels: Vec<_> = lexer
        .labels()
        .iter()
        .copied()
        .chain(page.relabel().labels())
        .collect();
    weigh(hasher, name, &labels).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Relabel;

    fn labels(id: &str) -> Relabel {
        Relabel::new([("id", id)]).unwrap()
    }

    fn page(body: &'static str, relabel: Relabel) -> Page {
        Page::read(body, relabel).unwrap()
    }

    fn samples(merge: Merge<Page>) -> Vec<String> {
        let text = String::from_utf8(merge.into_bytes()).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_page_without_help_has_the_rest() {
        let body = "# HELP x X\n# TYPE x gauge\nx 1\ny 2\n";
        let merge = Merge::new(vec![page(body, Relabel::default())], &Filter::default());
        let text = String::from_utf8(merge.without_help().into_bytes()).unwrap();
        assert_eq!(text, "# TYPE x gauge\nx 1\n# TYPE y untyped\ny 2\n");
    }

    #[test]
    fn labels_are_added_after_the_samples_own() {
        let body = "x 1\nx{a=\"}\"} 2 3\ngo_x{a=\" \"} NaN";
        let added = Relabel::new([("id", "i"), ("uid", "u\"")])
            .unwrap()
            .prefix("shim_", ["go_"])
            .unwrap();
        let labels = r#"id="i",uid="u\"""#;
        assert_eq!(
            samples(Merge::new(vec![page(body, added)], &Filter::default())),
            [
                format!(r#"shim_go_x{{a=" ",{labels}}} NaN"#),
                format!("x{{{labels}}} 1"),
                format!(r#"x{{a="}}",{labels}}} 2 3"#),
            ]
        );
    }

    #[test]
    fn a_prefix_needs_no_labels_and_labels_no_prefix() {
        let prefixed = Relabel::default().prefix("p_", ["x"]).unwrap();
        assert_eq!(
            samples(Merge::new(
                vec![page("x 1\nx{a=\"1\"} 2\ny 3\n", prefixed)],
                &Filter::default()
            )),
            ["p_x 1", "p_x{a=\"1\"} 2", "y 3"]
        );
    }

    #[test]
    fn of_a_series_in_two_pages_the_first_is_written() {
        let ours = page("up{id=\"a\"} 1\nup{id=\"b\"} 0\n", Relabel::default());
        let liar = page("up 7\nup{x=\"1\"} 8\n", labels("b"));
        assert_eq!(
            samples(Merge::new(vec![ours, liar], &Filter::default())),
            ["up{id=\"a\"} 1", "up{id=\"b\"} 0", "up{x=\"1\",id=\"b\"} 8"]
        );
        // Two pages that add the very same labels.
        let twice = || page("x{a=\"1\"} 1\nx 2\n", labels("a"));
        assert_eq!(
            samples(Merge::new(vec![twice(), twice()], &Filter::default())),
            ["x{a=\"1\",id=\"a\"} 1", "x{id=\"a\"} 2"]
        );
        // One name gets its prefix, the other has it.
        let one = page("x 1\n", Relabel::default().prefix("p_", ["x"]).unwrap());
        assert_eq!(
            samples(Merge::new(
                vec![one, page("p_x 2\n", Relabel::default())],
                &Filter::default()
            )),
            ["p_x 1"]
        );
    }

    #[test]
    fn chunks_are_whole_lines_and_little_longer_than_the_limit() {
        let body = "x{a=\"1\"} 1\nx{a=\"2\"} 2\ny 3\nz{a=\"1\"} 4\nz{a=\"2\"} 5\nz{a=\"3\"} 6\n";
        let pages = || vec![page(body, labels("1")), page(body, Relabel::default())];
        let whole = Merge::new(pages(), &Filter::default()).into_bytes();
        for limit in 1..whole.len() + 2 {
            let mut merge = Merge::new(pages(), &Filter::default());
            let (mut all, mut chunk) = (Vec::new(), Vec::new());
            loop {
                let more = merge.fill(&mut chunk, limit);
                assert!(chunk.len() < limit + 64, "{limit}: {}", chunk.len());
                assert!(chunk.is_empty() || chunk.ends_with(b"\n"), "{limit}");
                assert!(!more || chunk.len() >= limit, "{limit}");
                all.append(&mut chunk);
                if !more {
                    break;
                }
            }
            assert_eq!(all, whole, "{limit}");
        }
    }

    #[test]
    fn without_samples_the_page_is_empty() {
        assert_eq!(
            Merge::new(Vec::<Page>::new(), &Filter::default()).into_bytes(),
            b""
        );
        assert_eq!(
            Merge::new(
                vec![page("# TYPE x gauge\n", Relabel::default())],
                &Filter::default()
            )
            .into_bytes(),
            b""
        );
    }
}
