//! What can be wrong with a line, and where the limits are.

/// The longest line that is read, in bytes, without its line feed. Kata's longest has 250; a longer one is a
/// [`Fault`].
pub const MAX_LINE: usize = 64 << 10;

/// The most labels that one sample may have. Kata's samples have two; one with more is a [`Fault`].
pub const MAX_LABELS: usize = 64;

/// The most names of metrics that are read in one page. Kata's pages have 80; samples of further names are
/// left out.
pub const MAX_NAMES: usize = 10_000;

/// Why a line was left out of what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    LineTooLong,
    /// A line that is no comment has to begin with the name of a metric.
    #[error("no metric name")]
    NoName,
    /// Within the braces: no name, no `=`, no quote, a second comma, …
    #[error("malformed label")]
    MalformedLabel,
    /// No closing quote on the line.
    #[error("label value without an end")]
    UnclosedLabel,
    /// More than [`MAX_LABELS`].
    #[error("more than {MAX_LABELS} labels")]
    TooManyLabels,
    /// Prometheus fails the whole scrape over it.
    #[error("a label name twice in one sample")]
    RepeatedLabel,
    /// `__name__` is Prometheus's own.
    #[error("reserved label name __name__")]
    ReservedLabel,
    /// Prometheus fails the whole scrape over it.
    #[error("label value is not UTF-8")]
    NotUtf8,
    /// None, or one that is not a number to Prometheus; it fails the whole scrape over it.
    #[error("no value that Prometheus reads")]
    BadValue,
    /// Something behind the value that is no timestamp, or something behind that.
    #[error("no timestamp that Prometheus reads")]
    BadTimestamp,
    /// A `# HELP` or `# TYPE` line without a metric's name.
    #[error("no metric name in a HELP or TYPE line")]
    BadComment,
    /// None of the five types.
    #[error("unknown type in a TYPE line")]
    UnknownType,
    /// The same name and labels as a sample before it, of which the first is served.
    #[error("the same series as a sample before it")]
    RepeatedSeries,
    /// The page has more names than [`MAX_NAMES`].
    #[error("more than {} metric names in one page", MAX_NAMES)]
    TooManyNames,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct LineFault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub fault: Fault,
}
