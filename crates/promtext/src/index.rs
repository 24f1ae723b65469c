//! The one pass over a page that finds where everything in it is.

use foldhash::quality::RandomState;
use memchr::memchr_iter;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::str::from_utf8;

use crate::escape::mend_escapes;
use crate::fault::{Fault, LineFault, MAX_NAMES, Tally};
use crate::kind::Kind;
use crate::layout::{Layout, Name, Shape, Span};
use crate::lexer::{Label, Lexer, Line, Sample, lines};
use crate::number::is_float;
use crate::relabel::Relabel;

/// What [`index`] finds.
pub(crate) struct Index {
    /// Samples that had to be rewritten: into the plain form, or with labels renamed. Positions past the end of the
    /// body are in here.
    pub side: Vec<u8>,
    /// The lines of the samples, each with its line feed, in their order in the body.
    pub samples: Vec<Span>,
    pub layout: Layout,
    pub tally: Tally,
}

/// Indexes `body`, whose samples will be written with the changes of `relabel`.
pub(crate) fn index(body: &[u8], relabel: &Relabel) -> Index {
    let mut indexer = Indexer::new(body, relabel);
    indexer.read();
    let (names, runs) = group(indexer.names, &indexer.runs);
    indexer.samples.shrink_to_fit();
    indexer.values.shrink_to_fit();
    Index {
        side: indexer.side,
        samples: indexer.samples,
        layout: Layout {
            text: indexer.text,
            names,
            runs,
            values: indexer.values,
        },
        tally: indexer.tally,
    }
}

/// Sorts the runs by name (those of one name stay in order), and sets each name's.
fn group(building: Vec<Building<'_>>, runs: &[(u32, Span)]) -> (Vec<Name>, Vec<Span>) {
    let mut next = 0;
    let mut names: Vec<Name> = Vec::with_capacity(building.len());
    for Building { mut name, runs, .. } in building {
        name.runs = Span {
            start: next,
            end: next,
        };
        next += runs;
        names.push(name);
    }
    let mut grouped = vec![Span::default(); runs.len()];
    for &(id, run) in runs {
        if let Some(name) = names.get_mut(id as usize)
            && let Some(place) = grouped.get_mut(name.runs.end as usize)
        {
            *place = run;
            name.runs.end += 1;
        }
    }
    (names, grouped)
}

/// A [`Name`] while its page is read.
struct Building<'a> {
    name: Name,
    /// As in the body.
    written: &'a [u8],
    hash: u64,
    runs: u32,
}

struct Indexer<'a> {
    body: &'a [u8],
    relabel: &'a Relabel,
    side: Vec<u8>,
    samples: Vec<Span>,
    text: Vec<u8>,
    values: Vec<u32>,
    names: Vec<Building<'a>>,
    by_name: HashMap<&'a [u8], u32, RandomState>,
    runs: Vec<(u32, Span)>,
    /// A hash of each series that is kept. Their key is random, so no page can be made to collide; in a page of a
    /// million series, one is mistaken for a repeated one once in 37 million pages.
    series: HashSet<u64, RandomState>,
    tally: Tally,
}

impl<'a> Indexer<'a> {
    fn new(body: &'a [u8], relabel: &'a Relabel) -> Self {
        // Go exporters' lines have 61 bytes on average, comments included. With shorter ones the tables grow.
        let lines = (body.len() / 64).min(1 << 16);
        Self {
            body,
            relabel,
            side: Vec::new(),
            samples: Vec::with_capacity(lines),
            text: Vec::new(),
            values: Vec::with_capacity(lines),
            names: Vec::with_capacity(64),
            by_name: HashMap::with_capacity_and_hasher(64, RandomState::default()),
            runs: Vec::with_capacity(64),
            series: HashSet::with_capacity_and_hasher(lines, RandomState::default()),
            tally: Tally::default(),
        }
    }

    fn read(&mut self) {
        let body = self.body;
        let mut lexer = Lexer::new(body);
        for (offset, line) in lines(body) {
            let found = match lexer.read(line) {
                Ok(Line::Nothing) => Ok(()),
                Ok(Line::Help { name, text }) => self.help(name, text),
                Ok(Line::Type { name, kind }) => self.kind(name, kind),
                Ok(Line::Sample(sample)) => self.sample(&sample, lexer.labels(), offset, line.len()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = found {
                self.fault(fault, offset, line);
            }
        }
    }

    fn fault(&mut self, fault: Fault, offset: usize, line: &[u8]) {
        // A comment has no sample to lose.
        let lost = line.iter().find(|byte| !matches!(byte, b' ' | b'\t')) != Some(&b'#');
        self.tally.lost += usize::from(lost);
        if self.tally.first.is_none() || (lost && self.tally.lost == 1) {
            let before = self.body.get(..offset).unwrap_or_default();
            self.tally.first = Some(LineFault {
                line: 1 + memchr_iter(b'\n', before).count(),
                fault,
            });
        }
    }

    fn sample(
        &mut self,
        sample: &Sample<'a>,
        labels: &[Label<'a>],
        offset: usize,
        len: usize,
    ) -> Result<(), Fault> {
        let id = self.name(sample.name)?;
        let hash = self.names.get(id as usize).map_or(0, |name| name.hash);
        let has_line_feed = offset + len < self.body.len();
        let side = self.side.len();
        let (series, shape, line, value);
        if sample.plain && has_line_feed && !labels.iter().any(|label| self.relabel.adds(label.name)) {
            (series, shape) = weigh(self.series.hasher(), hash, labels);
            line = Span {
                start: position(offset),
                end: position(offset + len + 1),
            };
            value = value_in(sample, len);
        } else {
            self.relabel.rewrite(sample, labels, &mut self.side);
            let body = self.body.len();
            line = Span {
                start: position(body + side),
                end: position(body + self.side.len()),
            };
            let text = self
                .side
                .get(side..)
                .and_then(|line| line.strip_suffix(b"\n"))
                .unwrap_or_default();
            let mut lexer = Lexer::new(text);
            let again = match lexer.read(text) {
                Ok(Line::Sample(again)) => Ok(again),
                Ok(_) => Err(Fault::NoName),
                Err(fault) => Err(fault),
            };
            (series, shape) = weigh(self.series.hasher(), hash, lexer.labels());
            value = match again {
                Ok(again) => value_in(&again, text.len()),
                Err(fault) => {
                    self.side.truncate(side);
                    return Err(fault);
                }
            };
        }
        if !self.series.insert(series) {
            self.side.truncate(side);
            return Err(Fault::RepeatedSeries);
        }
        self.tally.samples += 1;
        let place = position(self.samples.len());
        self.samples.push(line);
        self.values.push(value);
        let Some(name) = self.names.get_mut(id as usize) else {
            return Ok(());
        };
        name.name.shape = name.name.shape | shape;
        match self.runs.last_mut() {
            Some((last, run)) if *last == id => run.end = place + 1,
            _ => {
                name.runs += 1;
                let run = Span {
                    start: place,
                    end: place + 1,
                };
                self.runs.push((id, run));
            }
        }
        Ok(())
    }

    /// The first type that a page gives counts.
    fn kind(&mut self, name: &'a [u8], kind: Kind) -> Result<(), Fault> {
        let id = self.name(name)?;
        if let Some(name) = self.names.get_mut(id as usize) {
            name.name.kind.get_or_insert(kind);
        }
        Ok(())
    }

    /// The first help that a page gives counts.
    fn help(&mut self, name: &'a [u8], text: &'a [u8]) -> Result<(), Fault> {
        let id = self.name(name)?;
        if text.is_empty()
            || self
                .names
                .get(id as usize)
                .is_none_or(|name| name.name.help.is_some())
        {
            return Ok(());
        }
        let start = self.text.len();
        if !text.contains(&b'\\') && from_utf8(text).is_ok() {
            self.text.extend_from_slice(text);
        } else {
            mend_escapes(String::from_utf8_lossy(text).as_bytes(), b"\\n", &mut self.text);
        }
        let span = self.text_from(start);
        if let Some(name) = self.names.get_mut(id as usize) {
            name.name.help = Some(span);
        }
        Ok(())
    }

    /// The index of the name in the list, to which a new one is added.
    fn name(&mut self, written: &'a [u8]) -> Result<u32, Fault> {
        // Most lines have the name of the previous one.
        if let Some(&(last, _)) = self.runs.last()
            && self
                .names
                .get(last as usize)
                .is_some_and(|name| name.written == written)
        {
            return Ok(last);
        }
        if let Some(&id) = self.by_name.get(written) {
            return Ok(id);
        }
        if self.names.len() == MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        let prefix = self.relabel.prefix_of(written);
        let start = self.text.len();
        self.text.extend_from_slice(prefix);
        self.text.extend_from_slice(written);
        let id = position(self.names.len());
        let hash = self
            .series
            .hasher()
            .hash_one(self.text.get(start..).unwrap_or_default());
        let name = self.text_from(start);
        let name = Name {
            name,
            prefixed: !prefix.is_empty(),
            kind: None,
            help: None,
            shape: Shape::default(),
            runs: Span::default(),
        };
        self.names.push(Building {
            name,
            written,
            hash,
            runs: 0,
        });
        self.by_name.insert(written, id);
        Ok(id)
    }

    /// The span of the layout's text from `start` on.
    fn text_from(&self, start: usize) -> Span {
        Span {
            start: position(start),
            end: position(self.text.len()),
        }
    }
}

/// Where in a plain line of `len` bytes the value starts.
fn value_in(sample: &Sample<'_>, len: usize) -> u32 {
    let after = match sample.timestamp.len() {
        0 => 0,
        timestamp => 1 + timestamp,
    };
    position(len.saturating_sub(sample.value.len() + after))
}

/// A hash of a series, whatever the order of its labels (an empty label is no label), and its shape.
pub(crate) fn weigh(hasher: &RandomState, name: u64, labels: &[Label<'_>]) -> (u64, Shape) {
    let mut series = name;
    let mut le = Shape::NO_LE;
    let mut quantile = Shape::NO_QUANTILE;
    let bound = |label: &Label<'_>, bad| {
        if is_float(label.value) {
            Shape::default()
        } else {
            bad
        }
    };
    for label in labels {
        if !label.value.is_empty() {
            series = series.wrapping_add(hasher.hash_one(label.whole));
        }
        match label.name {
            b"le" => le = bound(label, Shape::BAD_LE),
            b"quantile" => quantile = bound(label, Shape::BAD_QUANTILE),
            _ => {}
        }
    }
    (series, Shape::SAMPLES | le | quantile)
}

/// [`MAX_PAGE`](crate::MAX_PAGE) is far below the largest position; past it there would be nothing to read.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
