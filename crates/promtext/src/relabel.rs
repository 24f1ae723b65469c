//! What is changed of a sandbox's samples on their way into the node's page: labels added, names given a
//! prefix.

use std::borrow::Cow;

use super::lexer::{Label, Sample};

/// What [`Page::index`](super::Page::index) adds to every sample of one page, prepared once.
///
/// ```
/// use promtext::Relabel;
///
/// // As kata-monitor serves a sandbox's families.
/// let relabel = Relabel::kata("0ea1…", "7c31…", "web-0", "shop");
/// // The same by hand, with other labels.
/// let relabel = Relabel::default().label("sandbox_id", "0ea1…").prefix("kata_shim_", &["go_", "process_"]);
/// ```
///
/// # A label that the sandbox set itself
///
/// The added label stands, once. The sandbox's own is kept as `exported_<name>`, as Prometheus does it with a
/// scraped label that is also the target's (`honor_labels: false`); where it has the same value or an empty
/// one it says nothing and goes. A sandbox's guest is not to be trusted, and could otherwise pass its figures
/// off as another pod's. (kata-monitor puts the second one beside the first, and Prometheus then refuses the
/// whole page.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relabel {
    /// `name="value",name="value"`.
    text: Vec<u8>,
    /// For each label the end of its name and of its value's closing quote in `text`.
    ends: Vec<(usize, usize)>,
    /// Bit n: one of the names has n bytes (63: or more). Most of a page's labels are told apart by that
    /// alone.
    lengths: u64,
    prefix: &'static str,
    prefixed: &'static [&'static str],
}

impl Relabel {
    /// What kata-monitor adds: the labels `sandbox_id`, `cri_uid`, `cri_name` and `cri_namespace` (empty
    /// where they are not known), and the prefix `kata_shim_` for the families of the shim's own process,
    /// `go_*` and `process_*`.
    pub fn kata(sandbox_id: &str, cri_uid: &str, cri_name: &str, cri_namespace: &str) -> Self {
        Self::default()
            .label("sandbox_id", sandbox_id)
            .label("cri_uid", cri_uid)
            .label("cri_name", cri_name)
            .label("cri_namespace", cri_namespace)
            .prefix("kata_shim_", &["go_", "process_"])
    }

    /// Adds a label. `value` may be anything; `name` is nothing that is read from outside, and where a label
    /// cannot have it, or it is there already, or begins with `exported_`, no label is added.
    pub fn label(mut self, name: &'static str, value: &str) -> Self {
        let first = name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let valid = first
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let reserved = name == "__name__" || name.as_bytes().starts_with(EXPORTED);
        if !valid || reserved || self.find(name.as_bytes()).is_some() {
            return self;
        }
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        self.text.extend_from_slice(name.as_bytes());
        let name_end = self.text.len();
        self.text.extend_from_slice(b"=\"");
        escape_label(value.as_bytes(), &mut self.text);
        self.text.push(b'"');
        self.ends.push((name_end, self.text.len()));
        self.lengths |= 1 << name.len().min(63);
        self
    }

    /// Puts `prefix` before the name of every metric that begins with one of `starts`.
    pub fn prefix(mut self, prefix: &'static str, starts: &'static [&'static str]) -> Self {
        self.prefix = prefix;
        self.prefixed = starts;
        self
    }

    /// The added labels as they are written, without braces: `name="value",name="value"`.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The added labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = Label<'_>> {
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

    /// Whether the other does the same to a sample that has none of the labels: adds labels of the same names, and
    /// the same prefix to the same metrics.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let names = self.labels().map(|label| label.name);
        self.prefix == other.prefix
            && self.prefixed == other.prefixed
            && names.eq(other.labels().map(|label| label.name))
    }

    /// What goes before the name of this metric: nothing, or the prefix.
    pub(super) fn prefix_of(&self, metric: &[u8]) -> &'static str {
        if self
            .prefixed
            .iter()
            .any(|start| metric.starts_with(start.as_bytes()))
        {
            self.prefix
        } else {
            ""
        }
    }

    /// Whether a label of that name is added.
    pub(super) fn adds(&self, name: &[u8]) -> bool {
        self.lengths >> name.len().min(63) & 1 != 0 && self.find(name).is_some()
    }

    fn find(&self, name: &[u8]) -> Option<Label<'_>> {
        self.labels().find(|label| label.name == name)
    }

    /// Writes a sample in the plain form, with a line feed, and with its labels out of the way of those that
    /// are to be added.
    pub(super) fn rewrite(&self, sample: &Sample<'_>, labels: &[Label<'_>], out: &mut Vec<u8>) {
        out.extend_from_slice(sample.name);
        let mut open = b'{';
        for label in labels {
            let mut name = Cow::Borrowed(label.name);
            if let Some(ours) = self.find(label.name) {
                if label.value.is_empty() || label.value == ours.value {
                    continue;
                }
                name = Cow::Owned(self.exported(label.name, labels));
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

    /// `name` with [`EXPORTED`] before it, as often as it takes until neither the sample nor the added labels
    /// have it.
    fn exported(&self, name: &[u8], labels: &[Label<'_>]) -> Vec<u8> {
        let mut free = [EXPORTED, name].concat();
        while labels.iter().any(|label| label.name == free) {
            free = [EXPORTED, &free].concat();
        }
        free
    }
}

/// What Prometheus puts before a scraped label whose name it needs itself.
const EXPORTED: &[u8] = b"exported_";

/// Writes `value` so that it can stand between the quotes of a label.
pub(super) fn escape_label(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// Writes `text` as the text of a HELP line.
pub(super) fn escape_help(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// Writes escaped text with every backslash doubled that stands before none of `known`: what Prometheus takes
/// it for, in the form that other readers do not refuse.
pub(super) fn mend_escapes(text: &[u8], known: &[u8], out: &mut Vec<u8>) {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        out.push(byte);
        if byte != b'\\' {
            continue;
        }
        match bytes.as_slice().first() {
            Some(next) if known.contains(next) => {
                out.push(*next);
                bytes.next();
            }
            _ => out.push(b'\\'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::{Lexer, Line};
    use super::*;

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
        let relabel = Relabel::default().label("a", "\\ \" \n é").label("b", "");
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
    fn a_label_that_cannot_be_is_not_added() {
        let long: &'static str = Box::leak("n".repeat(70).into_boxed_str());
        let mut relabel = Relabel::default().label("a", "1").label(long, "2");
        for name in ["", "1a", "a-b", "a:b", "é", "__name__", "a", "exported_a"] {
            relabel = relabel.label(name, "3");
        }
        assert_eq!(relabel.text(), format!("a=\"1\",{long}=\"2\"").as_bytes());
        assert!(relabel.adds(b"a") && relabel.adds(long.as_bytes()));
        assert!(
            !relabel.adds(b"b")
                && !relabel.adds(b"")
                && !relabel.adds(&[b'n'; 69])
                && !relabel.adds(&[b'n'; 71])
        );
    }

    #[test]
    fn prefixes_go_before_names_that_begin_so() {
        let relabel = Relabel::kata("", "", "", "");
        assert_eq!(relabel.prefix_of(b"go_goroutines"), "kata_shim_");
        assert_eq!(relabel.prefix_of(b"process_open_fds"), "kata_shim_");
        for name in ["go", "gopher", "kata_go_x", "processes", "process"] {
            assert_eq!(relabel.prefix_of(name.as_bytes()), "", "{name}");
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
    fn the_sandboxs_own_label_gives_way() {
        let relabel = Relabel::default().label("id", "ours").label("uid", "");
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

    #[test]
    fn help_keeps_what_it_says() {
        let mend = |text: &str| {
            let mut out = Vec::new();
            mend_escapes(text.as_bytes(), b"\\n", &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(mend(r#"a\nb \\ \q \" \"#), r#"a\nb \\ \\q \\" \\"#);
        let mut out = Vec::new();
        escape_help("a\nb\\ \"c\"", &mut out);
        assert_eq!(out, br#"a\nb\\ "c""#);
    }
}
