//! The types of families.

/// The type of a family, as in its `# TYPE` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Only rises, except for restarts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// `_bucket` samples with the label `le`, and `_sum` and `_count`.
    Histogram,
    /// Samples with the label `quantile`, and `_sum` and `_count`.
    Summary,
    /// Unknown.
    Untyped,
}

impl Kind {
    /// All of them, in the order of the declaration.
    pub(crate) const ALL: [Kind; 5] = [
        Kind::Counter,
        Kind::Gauge,
        Kind::Histogram,
        Kind::Summary,
        Kind::Untyped,
    ];

    /// The word in the `# TYPE` line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
            Kind::Untyped => "untyped",
        }
    }

    /// What a sample of such a family may have after the family's name.
    pub(crate) fn suffixes(self) -> &'static [&'static str] {
        match self {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Summary => &["_sum", "_count"],
            _ => &[],
        }
    }
}
