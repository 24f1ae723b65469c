//! Changes to the samples of a page: labels added, names prefixed.

use std::borrow::Cow;
use std::sync::Arc;

use crate::cursor::{LABEL, LABEL_START, METRIC, METRIC_START, is_name};
use crate::escape::{escape_label, mend_escapes};
use crate::fault::Error;
use crate::lexer::{Label, Sample};

/// Labels to add to every sample of a page, and a prefix for some of its names. The default changes nothing.
///
/// ```
/// use promtext::{Filter, Merge, Page, Relabel};
///
/// let relabel = Relabel::new([("node", "a"), ("zone", "west")])?.prefix("sidecar_", ["go_"])?;
/// let page = Page::read("go_threads{node=\"mine\"} 7\nup 1\n", relabel)?;
/// let merged = Merge::new(vec![page], &Filter::default()).into_bytes();
/// let merged = String::from_utf8_lossy(&merged);
/// assert!(merged.contains("sidecar_go_threads{exported_node=\"mine\",node=\"a\",zone=\"west\"} 7\n"));
/// assert!(merged.contains("up{node=\"a\",zone=\"west\"} 1\n"));
/// # Ok::<(), promtext::Error>(())
/// ```
///
/// # If the page has such a label itself
///
/// The added label wins. The page's own becomes `exported_<name>`, as Prometheus does it with `honor_labels: false`; it
/// is dropped if its value is the same or empty. So a source cannot pass its samples off as another's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relabel {
    /// `name="value",name="value"`.
    text: Vec<u8>,
    /// For each label, the end of its name and of its closing quote in `text`.
    ends: Vec<(usize, usize)>,
    /// Bit n: one of the names has n bytes (63: or more). That rules out most of a page's labels, and makes reading 4 %
    /// faster.
    lengths: u64,
    prefix: Option<Arc<Prefix>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Prefix {
    prefix: String,
    starts: Vec<String>,
}

impl Relabel {
    /// Adds these labels, by name and value. A value may be any text.
    ///
    /// A name that Prometheus does not take, `__name__`, one that starts with `exported_` and one that is given twice
    /// are an [`Error::LabelName`].
    pub fn new<'n, 'v>(labels: impl IntoIterator<Item = (&'n str, &'v str)>) -> Result<Self, Error> {
        let mut relabel = Self::default();
        for (name, value) in labels {
            let reserved = name == "__name__" || name.as_bytes().starts_with(EXPORTED);
            if reserved || !is_name(name, LABEL_START, LABEL) || relabel.find(name.as_bytes()).is_some() {
                return Err(Error::LabelName(name.to_owned()));
            }
            relabel.add(name, value);
        }
        Ok(relabel)
    }

    fn add(&mut self, name: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        self.text.extend_from_slice(name.as_bytes());
        let name_end = self.text.len();
        self.text.extend_from_slice(b"=\"");
        escape_label(value, &mut self.text);
        self.text.push(b'"');
        self.ends.push((name_end, self.text.len()));
        self.lengths |= 1 << name.len().min(63);
    }

    /// Puts `prefix` before every metric name that starts with one of `starts`; it replaces an earlier prefix.
    ///
    /// A prefix that no metric name can start with is an [`Error::MetricPrefix`].
    pub fn prefix<S: Into<String>>(
        mut self,
        prefix: &str,
        starts: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        if !is_name(prefix, METRIC_START, METRIC) {
            return Err(Error::MetricPrefix(prefix.to_owned()));
        }
        self.prefix = Some(Arc::new(Prefix {
            prefix: prefix.to_owned(),
            starts: starts.into_iter().map(Into::into).collect(),
        }));
        Ok(self)
    }

    /// The added labels as they are written, without braces: `name="value",name="value"`.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The added labels.
    pub(crate) fn labels(&self) -> impl Iterator<Item = Label<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let label = Label {
                name: self.text.get(start..name_end).unwrap_or_default(),
                value: self.text.get(name_end + 2..end - 1).unwrap_or_default(),
                whole: self.text.get(start..end).unwrap_or_default(),
                odd_escape: false,
            };
            start = end + 1;
            label
        })
    }

    /// Whether both change a sample in the same way that has none of the labels, apart from the values of those labels.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let names = self.labels().map(|label| label.name);
        self.prefix == other.prefix && names.eq(other.labels().map(|label| label.name))
    }

    /// The prefix for those names that get it.
    pub(crate) fn prefix_text(&self) -> &[u8] {
        self.prefix
            .as_ref()
            .map_or(b"", |prefix| prefix.prefix.as_bytes())
    }

    /// The prefix for this name; empty if it gets none.
    pub(crate) fn prefix_of(&self, metric: &[u8]) -> &[u8] {
        let starts = self.prefix.iter().flat_map(|prefix| &prefix.starts);
        if starts
            .into_iter()
            .any(|start| metric.starts_with(start.as_bytes()))
        {
            self.prefix_text()
        } else {
            b""
        }
    }

    /// Whether a label of that name is added.
    pub(crate) fn adds(&self, name: &[u8]) -> bool {
        self.lengths >> name.len().min(63) & 1 != 0 && self.find(name).is_some()
    }

    fn find(&self, name: &[u8]) -> Option<Label<'_>> {
        self.labels().find(|label| label.name == name)
    }

    /// Writes a sample in the plain form, with a line feed, and with its own labels renamed where one is added under
    /// that name.
    pub(crate) fn rewrite(&self, sample: &Sample<'_>, labels: &[Label<'_>], out: &mut Vec<u8>) {
        out.extend_from_slice(sample.name);
        let mut open = b'{';
        for label in labels {
            let mut name = Cow::Borrowed(label.name);
            if let Some(ours) = self.find(label.name) {
                if label.value.is_empty() || label.value == ours.value {
                    continue;
                }
                name = Cow::Owned(exported(label.name, labels));
            }
            out.push(open);
            open = b',';
            out.extend_from_slice(&name);
            out.extend_from_slice(b"=\"");
            if label.odd_escape {
                mend_escapes(label.value, b"\\\"n", out);
            } else {
                out.extend_from_slice(label.value);
            }
            out.push(b'"');
        }
        if open == b',' {
            out.push(b'}');
        }
        for part in [sample.value, sample.timestamp] {
            if !part.is_empty() {
                out.push(b' ');
                out.extend_from_slice(part);
            }
        }
        out.push(b'\n');
    }
}

/// What Prometheus puts before a scraped label whose name it needs itself.
const EXPORTED: &[u8] = b"exported_";

/// `name` with [`EXPORTED`] before it, as often as needed for a name that the sample does not have. No label is added
/// under such a name.
fn exported(name: &[u8], labels: &[Label<'_>]) -> Vec<u8> {
    let mut free = [EXPORTED, name].concat();
    while labels.iter().any(|label| label.name == free) {
        free = [EXPORTED, &free].concat();
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::{Lexer, Line};

    fn rewritten(relabel: &Relabel, line: &str) -> String {
        let mut lexer = Lexer::new(line.as_bytes());
        let Ok(Line::Sample(sample)) = lexer.read(line.as_bytes()) else {
            panic!("{line}")
        };
        let mut out = Vec::new();
        relabel.rewrite(&sample, lexer.labels(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn labels_are_escaped_once() {
        let relabel = Relabel::new([("a", "\\ \" \n é"), ("b", "")]).unwrap();
        assert_eq!(relabel.text(), r#"a="\\ \" \n é",b="""#.as_bytes());
        let labels: Vec<_> = relabel
            .labels()
            .map(|label| (label.name, label.value, label.whole))
            .collect();
        let a = (
            &b"a"[..],
            r#"\\ \" \n é"#.as_bytes(),
            r#"a="\\ \" \n é""#.as_bytes(),
        );
        assert_eq!(labels, [a, (b"b", b"", b"b=\"\"")]);
    }

    #[test]
    fn names_that_cannot_be_added_are_refused() {
        let long = "n".repeat(70);
        let relabel = Relabel::new([("a", "1"), (&long, "2")]).unwrap();
        assert_eq!(relabel.text(), format!("a=\"1\",{long}=\"2\"").as_bytes());
        assert!(relabel.adds(b"a") && relabel.adds(long.as_bytes()));
        for other in [&b"b"[..], b"", &[b'n'; 69], &[b'n'; 71]] {
            assert!(!relabel.adds(other));
        }
        for name in ["", "1a", "a-b", "a:b", "é", "__name__", "x", "exported_a"] {
            let error = Relabel::new([("x", ""), (name, "3")]);
            assert_eq!(error, Err(Error::LabelName(name.into())));
        }
        for prefix in ["", "1a", "a-", "é"] {
            let error = Relabel::default().prefix(prefix, ["x"]);
            assert_eq!(error, Err(Error::MetricPrefix(prefix.into())));
        }
    }

    #[test]
    fn prefixes_go_before_names_with_that_start() {
        let relabel = Relabel::default().prefix("shim_", ["go_", "process_"]).unwrap();
        assert_eq!(relabel.prefix_of(b"go_goroutines"), b"shim_");
        assert_eq!(relabel.prefix_of(b"process_open_fds"), b"shim_");
        for name in ["go", "gopher", "shim_go_x", "processes", "process"] {
            assert_eq!(relabel.prefix_of(name.as_bytes()), b"", "{name}");
        }
    }

    #[test]
    fn other_forms_become_plain() {
        let none = Relabel::default();
        for (line, plain) in [
            (" x\t{ a = \"b\" , } 1  7 ", "x{a=\"b\"} 1 7\n"),
            ("x{a=\"b\"c=\"\"}+1e5", "x{a=\"b\",c=\"\"} +1e5\n"),
            ("x { } .5", "x .5\n"),
            (
                r#"x{a="\q\\\n\"\\q\é"} 1"#,
                "x{a=\"\\\\q\\\\\\n\\\"\\\\q\\\\é\"} 1\n",
            ),
        ] {
            assert_eq!(rewritten(&none, line), plain);
        }
    }

    #[test]
    fn the_pages_own_label_gives_way() {
        let relabel = Relabel::new([("id", "ours"), ("uid", "")]).unwrap();
        for (line, plain) in [
            ("x{id=\"theirs\"} 1", "x{exported_id=\"theirs\"} 1\n"),
            (
                "x{a=\"1\",id=\"theirs\",uid=\"u\"} 1",
                "x{a=\"1\",exported_id=\"theirs\",exported_uid=\"u\"} 1\n",
            ),
            ("x{id=\"ours\"} 1", "x 1\n"),
            ("x{id=\"\",a=\"1\"} 1", "x{a=\"1\"} 1\n"),
            (
                "x{exported_id=\"1\",id=\"2\",exported_exported_id=\"3\"} 1",
                "x{exported_id=\"1\",exported_exported_exported_id=\"2\",exported_exported_id=\"3\"} 1\n",
            ),
        ] {
            assert_eq!(rewritten(&relabel, line), plain);
        }
    }
}
