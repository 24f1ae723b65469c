//! What a page has apart from the values of its samples. Kata's pages hardly differ in it, from one scrape to the
//! next and from one sandbox to another.

use super::kind::Kind;

/// The names of a page and which of its samples are whose.
#[derive(Debug)]
pub(super) struct Layout {
    /// Names and help texts.
    pub text: Vec<u8>,
    /// In the order in which they first appear.
    pub names: Vec<Name>,
    /// Samples that follow each other and have the same name: the runs of the first name, then those of the
    /// second, …
    pub runs: Vec<Span>,
    /// For each sample where in its line the value begins.
    pub values: Vec<u32>,
}

impl Layout {
    /// A name, or a help text.
    pub fn text(&self, span: Span) -> &[u8] {
        self.text
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    /// The samples of a name, by their places in the page.
    pub fn runs(&self, name: &Name) -> &[Span] {
        self.runs
            .get(name.runs.start as usize..name.runs.end as usize)
            .unwrap_or_default()
    }

    /// In bytes.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.text.len()
            + size_of_val(&self.names[..])
            + size_of_val(&self.runs[..])
            + size_of_val(&self.values[..])
    }
}

/// Places, from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

/// What a page has under one name: samples, or a type and a help text, or both. Which family it belongs to is
/// not decided here, as that depends on the other pages.
#[derive(Debug)]
pub(super) struct Name {
    /// Its text, with its prefix where it has one.
    pub name: Span,
    pub prefix: &'static str,
    pub kind: Option<Kind>,
    /// Escaped, not empty.
    pub help: Option<Span>,
    pub shape: Shape,
    /// Which of the layout's runs.
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
