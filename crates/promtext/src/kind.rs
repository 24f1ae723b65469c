//! The types of families.

/// The type of a family, as its `# TYPE` line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Only rises, but for restarts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// `_bucket` samples with the label `le`, and `_sum` and `_count`.
    Histogram,
    /// Samples with the label `quantile`, and `_sum` and `_count`.
    Summary,
    /// Nothing is known.
    Untyped,
}

impl Kind {
    /// All of them, in the order of the declaration.
    pub(super) const ALL: [Kind; 5] = [
        Kind::Counter,
        Kind::Gauge,
        Kind::Histogram,
        Kind::Summary,
        Kind::Untyped,
    ];

    /// The word in the `# TYPE` line.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
            Kind::Untyped => "untyped",
        }
    }

    /// What the names of a family's samples have behind the family's own name, where they have something.
    pub(super) fn suffixes(self) -> &'static [&'static str] {
        match self {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Summary => &["_sum", "_count"],
            _ => &[],
        }
    }
}
