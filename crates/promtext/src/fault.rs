//! The limits, what can be wrong with a line or a page, and the count of it.

/// The longest page that is read, in bytes: positions in it are 32-bit numbers. Whoever fetches a page should set a
/// much lower limit.
pub const MAX_PAGE: usize = 512 << 20;

/// The longest line that is read, in bytes, without its line feed.
pub const MAX_LINE: usize = 64 << 10;

/// The most labels that one sample may have.
pub const MAX_LABELS: usize = 64;

/// The most metric names in one page; samples with further names are left out.
pub const MAX_NAMES: usize = 10_000;

/// Why there is no [`Page`](crate::Page), or no [`Relabel`](crate::Relabel).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Longer than [`MAX_PAGE`].
    #[error("a page of {0} bytes is longer than the limit of {MAX_PAGE}")]
    PageTooLong(usize),
    /// A label cannot be added under this name: it is not a label name, it is `__name__`, it starts with
    /// `exported_`, or it is given twice.
    #[error("cannot add a label named {0:?}: the name is invalid, reserved or given twice")]
    LabelName(String),
    /// A metric name cannot start with this prefix.
    #[error("{0:?} is not a prefix of metric names")]
    MetricPrefix(String),
}

/// Why a line was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Longer than [`MAX_LINE`].
    #[error("longer than {MAX_LINE} bytes")]
    LineTooLong,
    /// The line is not a comment, and does not start with a metric name.
    #[error("no metric name")]
    NoName,
    /// `{"some.name"}` or `{"some.label"="x"}`: Prometheus reads these since version 3, and older versions refuse
    /// a whole page for one.
    #[error("quoted name, which Prometheus before version 3 does not read")]
    QuotedName,
    /// Between the braces: no name, no `=`, no quote, a second comma, …
    #[error("malformed label")]
    MalformedLabel,
    /// A label value without a closing quote on the same line.
    #[error("label value without closing quote")]
    UnclosedLabel,
    /// More than [`MAX_LABELS`].
    #[error("more than {MAX_LABELS} labels")]
    TooManyLabels,
    /// The same label name twice in one sample.
    #[error("repeated label name")]
    RepeatedLabel,
    /// `__name__` is for Prometheus itself.
    #[error("reserved label name __name__")]
    ReservedLabel,
    /// A label value that is not UTF-8.
    #[error("label value is not UTF-8")]
    NotUtf8,
    /// No value, or one that Prometheus does not read as a number.
    #[error("no valid value")]
    BadValue,
    /// What follows the value is not a timestamp, or not only a timestamp.
    #[error("invalid timestamp")]
    BadTimestamp,
    /// A HELP or TYPE comment without a metric name.
    #[error("no metric name in a HELP or TYPE comment")]
    BadComment,
    /// A TYPE comment with a type that the format does not have.
    #[error("unknown type in a TYPE comment")]
    UnknownType,
    /// The same name and labels as an earlier sample of the page; the earlier one is kept.
    #[error("repeated series")]
    RepeatedSeries,
    /// The page has more than [`MAX_NAMES`] metric names.
    #[error("more than {MAX_NAMES} metric names in one page")]
    TooManyNames,
}

/// A line that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct LineFault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What was found in a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples that are kept.
    pub samples: usize,
    /// Lines that are left out: neither blank nor a comment, but not a valid sample, or a repeated one.
    pub lost: usize,
    /// The first line that is left out. If there is none, the first invalid HELP or TYPE comment: its family lacks a help
    /// text or a type, but no sample.
    pub first: Option<LineFault>,
}
