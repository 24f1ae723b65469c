//! A page without the values of its samples. The pages of one exporter rarely differ in it from one scrape to the
//! next, nor do those of several exporters of one kind: they share it.

use crate::kind::Kind;

/// The names of a page, and which samples belong to each.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Names and help texts.
    pub text: Vec<u8>,
    /// In the order of their first appearance.
    pub names: Vec<Name>,
    /// Consecutive samples of one name: all runs of the first name, then those of the second, …
    pub runs: Vec<Span>,
    /// For each sample, where in its line the value starts.
    pub values: Vec<u32>,
}

impl Layout {
    /// A name or a help text.
    pub fn text(&self, span: Span) -> &[u8] {
        self.text
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    /// The samples of a name, by their indices in the page.
    pub fn runs(&self, name: &Name) -> &[Span] {
        self.runs
            .get(name.runs.start as usize..name.runs.end as usize)
            .unwrap_or_default()
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.text.len()
            + size_of_val(&self.names[..])
            + size_of_val(&self.runs[..])
            + size_of_val(&self.values[..])
    }
}

/// From `start` to before `end`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub start: u32,
    pub end: u32,
}

/// What a page has under one name: samples, or a type and a help text, or both. Which family it belongs to depends
/// on the other pages too, and is decided when pages are merged.
#[derive(Debug)]
pub(crate) struct Name {
    /// Its text, with the prefix if it gets one.
    pub name: Span,
    /// Gets the prefix of the page's `Relabel`.
    pub prefixed: bool,
    pub kind: Option<Kind>,
    /// Escaped, not empty.
    pub help: Option<Span>,
    pub shape: Shape,
    /// Its runs in the layout.
    pub runs: Span,
}

/// What the samples of one name have of the two labels that make up histograms and summaries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape(u8);

impl Shape {
    /// There is a sample.
    pub const SAMPLES: Shape = Shape(1);
    /// There is a sample without `le`.
    pub const NO_LE: Shape = Shape(2);
    /// There is one whose `le` is not a number: a format error in a histogram, to Prometheus's Go client.
    pub const BAD_LE: Shape = Shape(4);
    /// There is a sample without `quantile`.
    pub const NO_QUANTILE: Shape = Shape(8);
    /// There is one whose `quantile` is not a number: the same in a summary.
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
