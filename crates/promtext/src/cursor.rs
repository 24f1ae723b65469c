//! A position in a line, and the steps that the format consists of.

#![allow(clippy::indexing_slicing)] // Only of the table that has an entry for every byte.

/// A byte that a metric name may start with.
pub(crate) const METRIC_START: u8 = 1;
/// A byte that may be in a metric name.
pub(crate) const METRIC: u8 = 2;
/// A byte that a label name may start with.
pub(crate) const LABEL_START: u8 = 4;
/// A byte that may be in a label name.
pub(crate) const LABEL: u8 = 8;

/// Which bytes may be where in a name.
static CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => METRIC_START | METRIC | LABEL_START | LABEL,
            b'0'..=b'9' => METRIC | LABEL,
            b':' => METRIC_START | METRIC,
            _ => 0,
        };
        byte += 1;
    }
    class
};

/// Past the end of the line every byte reads as a line feed, which is in no line.
pub(crate) struct Cursor<'a> {
    line: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(line: &'a [u8]) -> Self {
        Self { line, at: 0 }
    }

    pub fn peek(&self) -> u8 {
        self.line.get(self.at).copied().unwrap_or(b'\n')
    }

    pub fn since(&self, start: usize) -> &'a [u8] {
        self.line.get(start..self.at).unwrap_or_default()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or_default()
    }

    /// Reads bytes as long as they satisfy `is`.
    fn while_is(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|&byte| !is(byte)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// Skips to the next quote or backslash, or to the end of the line.
    pub fn skip_unescaped(&mut self) {
        // Values are short: memchr2 takes as long.
        self.while_is(|byte| byte != b'"' && byte != b'\\');
    }

    /// Skips blanks; whether there were none.
    #[inline]
    pub fn no_blanks(&mut self) -> bool {
        !matches!(self.peek(), b' ' | b'\t') || self.blanks().is_empty()
    }

    pub fn blanks(&mut self) -> &'a [u8] {
        self.while_is(|byte| byte == b' ' || byte == b'\t')
    }

    /// Reads a name; empty if there is none.
    pub fn name(&mut self, first: u8, next: u8) -> &'a [u8] {
        if CLASS[usize::from(self.peek())] & first == 0 {
            return &[];
        }
        self.while_is(|byte| CLASS[usize::from(byte)] & next != 0)
    }

    /// Reads a metric name if it is `known`.
    pub fn known_name(&mut self, known: &[u8]) -> Option<&'a [u8]> {
        let (name, rest) = self.rest().split_at_checked(known.len())?;
        let ends = rest
            .first()
            .is_none_or(|&byte| CLASS[usize::from(byte)] & METRIC == 0);
        (ends && name == known).then(|| {
            self.at += known.len();
            name
        })
    }

    /// Reads up to the next blank or the end of the line.
    pub fn word(&mut self) -> &'a [u8] {
        self.while_is(|byte| byte != b' ' && byte != b'\t')
    }
}

/// Whether `text` is a name and nothing else.
pub(crate) fn is_name(text: &str, first: u8, next: u8) -> bool {
    let name = Cursor::new(text.as_bytes()).name(first, next);
    !name.is_empty() && name.len() == text.len()
}
