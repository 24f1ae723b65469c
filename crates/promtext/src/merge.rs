//! Several pages as one, written as it is asked for.

use foldhash::quality::RandomState;
use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::BuildHasher;

use super::filter::Filter;
use super::index::weigh;
use super::layout::Span;
use super::lexer::{Lexer, Line};
use super::page::Page;
use super::plan::{Family, Part, plan};

/// Writes several pages as one that Prometheus reads: each family once, sorted by name, with one HELP and one
/// TYPE line, and in it the samples of one page after those of another, in the order in which they came.
///
/// The joined page is never held: [`fill`](Self::fill) writes the next part of it into the caller's buffer.
/// Beside the pages it takes 8 bytes for each name in each of them.
///
/// Where two pages disagree about a family, types are given up before samples are: the type that most pages
/// give a family is the one it gets, or `untyped` where some page's samples cannot be of that type. The help
/// is the first page's that has one. So put first the page that is to be believed, one's own. Of a series
/// that two pages have, labels added, the first page's is served.
///
/// ```
/// use promtext::{Filter, Merge, Page, Relabel};
///
/// let one = Page::index("# TYPE up gauge\nup 1\n# TYPE load gauge\nload 0.50\n", Relabel::default().label("id", "a"))?;
/// let two = Page::index("load{cpu=\"0\"} 1e-3\n", Relabel::default().label("id", "b"))?;
/// let mut merge = Merge::new(vec![one, two], &Filter::default());
/// let (mut page, mut chunk) = (Vec::new(), Vec::new());
/// loop {
///     let more = merge.fill(&mut chunk, 64 << 10);
///     page.append(&mut chunk); // or: send the chunk, and clear it
///     if !more {
///         break;
///     }
/// }
/// let samples: Vec<_> = page.split(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"#")).collect();
/// assert_eq!(samples[0], br#"load{id="a"} 0.50"#);
/// assert_eq!(samples[1], br#"load{cpu="0",id="b"} 1e-3"#);
/// assert_eq!(samples[2], br#"up{id="a"} 1"#);
/// # Ok::<(), promtext::PageTooLong>(())
/// ```
#[derive(Debug)]
pub struct Merge<P> {
    pages: Vec<P>,
    families: std::vec::IntoIter<Family>,
    /// The family that is being written, without the parts that are.
    family: Option<Open>,
    /// What is left of the page that is being written: the next run is the last here.
    runs: Vec<Run>,
    page: usize,
    hasher: RandomState,
    repeated: usize,
}

/// A family that is being written.
#[derive(Debug)]
struct Open {
    parts: std::vec::IntoIter<Part>,
    /// The hash of its series so far, where pages may have one in common.
    series: Option<HashSet<u64, RandomState>>,
}

/// Samples to be written, by their places in the page.
#[derive(Debug, Clone, Copy)]
struct Run {
    samples: Span,
    prefix: &'static str,
}

impl<P: Borrow<Page>> Merge<P> {
    /// Prepares the joined page of all families of `pages` that `filter` fits.
    pub fn new(pages: Vec<P>, filter: &Filter) -> Self {
        let families = plan(&pages, filter).into_iter();
        Self {
            pages,
            families,
            family: None,
            runs: Vec::new(),
            page: 0,
            hasher: RandomState::default(),
            repeated: 0,
        }
    }

    /// Appends whole lines to `out` until it has at least `limit` bytes, or the page ends: then it returns
    /// `false`. Past the limit it has at most one line, or the two that begin a family.
    pub fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        while out.len() < limit {
            if self.runs.is_empty() && !self.next_part() && !self.next_family(out) {
                return false;
            }
            self.write(out, limit);
        }
        true
    }

    /// The whole page, for where it is known to be small.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.fill(&mut out, usize::MAX) {}
        out
    }

    /// How many samples were left out so far because a page before had the same series. Pages whose added
    /// labels differ have none in common.
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// Begins the next family; whether there is one.
    fn next_family(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(family) = self.families.next() else {
            return false;
        };
        let help = family
            .help
            .and_then(|(page, span)| Some(self.pages.get(page)?.borrow().layout().text(span)));
        out.extend_from_slice(b"# HELP ");
        out.extend_from_slice(&family.name);
        out.push(b' ');
        out.extend_from_slice(help.unwrap_or(b"No help text was given."));
        out.extend_from_slice(b"\n# TYPE ");
        out.extend_from_slice(&family.name);
        out.push(b' ');
        out.extend_from_slice(family.kind.word().as_bytes());
        out.push(b'\n');
        let series = family.overlaps.then(HashSet::default);
        self.family = Some(Open {
            parts: family.parts.into_iter(),
            series,
        });
        true
    }

    /// Takes up what the next page has of the open family; whether there is one.
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
                let prefix = name.prefix;
                let runs = layout.runs(name).iter();
                self.runs.extend(runs.map(|&samples| Run { samples, prefix }));
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
        let mut seen = self.family.as_mut().and_then(|family| family.series.as_mut());
        while run.samples.start < run.samples.end && out.len() < limit {
            let sample = page.sample(run.samples.start);
            run.samples.start += 1;
            let Some((series, rest)) = sample else { continue };
            let new = seen
                .as_deref_mut()
                .is_none_or(|seen| seen.insert(served(&self.hasher, run.prefix, series, rest, page)));
            if new {
                relabelled(run.prefix, series, rest, added, out);
            } else {
                self.repeated += 1;
            }
        }
        if run.samples.start >= run.samples.end {
            self.runs.pop();
        }
    }
}

/// Writes a plain sample with labels added behind its own.
fn relabelled(prefix: &str, series: &[u8], rest: &[u8], added: &[u8], out: &mut Vec<u8>) {
    out.reserve(prefix.len() + series.len() + added.len() + rest.len() + 2);
    out.extend_from_slice(prefix.as_bytes());
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

/// A hash of the series of a plain sample of `page`, with its prefix and the labels that are added.
fn served(hasher: &RandomState, prefix: &str, series: &[u8], rest: &[u8], page: &Page) -> u64 {
    let line = [series, rest.trim_ascii_end()].concat();
    let mut lexer = Lexer::new(&line);
    let Ok(Line::Sample(sample)) = lexer.read(&line) else {
        return 0;
    };
    let name = hasher.hash_one([prefix.as_bytes(), sample.name].concat());
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
    use super::super::Relabel;
    use super::*;

    fn page(body: &'static str, relabel: Relabel) -> Page {
        Page::index(body, relabel).unwrap()
    }

    fn samples(merge: Merge<Page>) -> Vec<String> {
        let text = String::from_utf8(merge.into_bytes()).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn labels_go_behind_those_that_are_there() {
        let body = "x 1\nx{a=\"}\"} 2 3\ngo_x{a=\" \"} NaN";
        let added = Relabel::kata("i", "u", "n\"", "s");
        let labels = r#"sandbox_id="i",cri_uid="u",cri_name="n\"",cri_namespace="s""#;
        assert_eq!(
            samples(Merge::new(vec![page(body, added)], &Filter::default())),
            [
                format!(r#"kata_shim_go_x{{a=" ",{labels}}} NaN"#),
                format!("x{{{labels}}} 1"),
                format!(r#"x{{a="}}",{labels}}} 2 3"#),
            ]
        );
    }

    #[test]
    fn a_prefix_needs_no_labels_and_labels_no_prefix() {
        let prefixed = Relabel::default().prefix("p_", &["x"]);
        assert_eq!(
            samples(Merge::new(
                vec![page("x 1\nx{a=\"1\"} 2\ny 3\n", prefixed)],
                &Filter::default()
            )),
            ["p_x 1", "p_x{a=\"1\"} 2", "y 3"]
        );
    }

    #[test]
    fn of_a_series_in_two_pages_the_first_is_served() {
        let ours = page("up{id=\"a\"} 1\nup{id=\"b\"} 0\n", Relabel::default());
        let liar = page("up 7\nup{x=\"1\"} 8\n", Relabel::default().label("id", "b"));
        let mut merge = Merge::new(vec![&ours, &liar], &Filter::default());
        let mut out = Vec::new();
        assert!(!merge.fill(&mut out, usize::MAX));
        assert_eq!(merge.repeated(), 1);
        let text = String::from_utf8(out).unwrap();
        let (_, served) = text.split_once("untyped\n").unwrap();
        assert_eq!(served, "up{id=\"a\"} 1\nup{id=\"b\"} 0\nup{x=\"1\",id=\"b\"} 8\n");
        // Two pages that add the very same labels.
        let twice = || page("x{a=\"1\"} 1\nx 2\n", Relabel::default().label("id", "a"));
        assert_eq!(
            samples(Merge::new(vec![twice(), twice()], &Filter::default())),
            ["x{a=\"1\",id=\"a\"} 1", "x{id=\"a\"} 2"]
        );
        // A name that is given its prefix, and one that has it.
        let one = page("x 1\n", Relabel::default().prefix("p_", &["x"]));
        assert_eq!(
            samples(Merge::new(
                vec![one, page("p_x 2\n", Relabel::default())],
                &Filter::default()
            )),
            ["p_x 1"]
        );
    }

    #[test]
    fn chunks_are_whole_lines_and_hardly_longer_than_asked() {
        let body = "x{a=\"1\"} 1\nx{a=\"2\"} 2\ny 3\nz{a=\"1\"} 4\nz{a=\"2\"} 5\nz{a=\"3\"} 6\n";
        let pages = || {
            vec![
                page(body, Relabel::default().label("id", "1")),
                page(body, Relabel::default()),
            ]
        };
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
    fn no_pages_are_an_empty_page() {
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
