//! The lines of a page, one at a time, borrowed from it.
//!
//! A sample is what a scrape by Prometheus takes: its lexer is more lenient than the description of the format (blanks
//! anywhere between tokens, a comma missing or at the end, unknown escapes). [`Sample::plain`] says whether the line
//! already has the one form that every reader takes.
//!
//! Three things that Prometheus takes are refused here: a line feed within a label value, which the format forbids and
//! which would let a line that was cut off swallow the next ones; quoted names, which only Prometheus 3 takes; and what
//! is beyond the limits.

use memchr::memchr;
use std::str::from_utf8;

use crate::cursor::{Cursor, LABEL, LABEL_START, METRIC, METRIC_START};
use crate::fault::{Fault, MAX_LABELS, MAX_LINE};
use crate::kind::Kind;
use crate::number::{is_float, is_timestamp};

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Blank, or a comment for people.
    Nothing,
    Help {
        name: &'a [u8],
        text: &'a [u8],
    },
    Type {
        name: &'a [u8],
        kind: Kind,
    },
    Sample(Sample<'a>),
}

/// A sample; its labels are with the [`Lexer`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sample<'a> {
    pub name: &'a [u8],
    /// As written.
    pub value: &'a [u8],
    /// As written; empty if there is none.
    pub timestamp: &'a [u8],
    /// `name{label="value",label="value"} value timestamp`: single blanks and commas, no empty braces, only the three
    /// escapes. It can be written as it is.
    pub plain: bool,
}

/// One label of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label<'a> {
    pub name: &'a [u8],
    /// What is between the quotes, escapes as written.
    pub value: &'a [u8],
    /// `name="value"`, as written. In a plain line it has no blanks outside the value.
    pub whole: &'a [u8],
    /// There is a backslash before something other than `\`, `"` and `n`: Prometheus reads it as a backslash.
    pub odd_escape: bool,
}

/// The lines of `body` without their line feeds, each with its offset. The last line may lack its line feed.
pub(crate) fn lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = body.get(start..).filter(|rest| !rest.is_empty())?;
        let line = memchr(b'\n', rest)
            .and_then(|end| rest.get(..end))
            .unwrap_or(rest);
        let offset = start;
        start += line.len() + 1;
        Some((offset, line))
    })
}

/// Reads the lines of one page.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    /// The whole page is UTF-8, so its label values need no check.
    utf8: bool,
    /// The name of the previous sample, which usually is this one's too: to try it first makes reading a tenth faster.
    last: &'a [u8],
    labels: Vec<Label<'a>>,
}

impl<'a> Lexer<'a> {
    pub fn new(page: &[u8]) -> Self {
        Self {
            utf8: from_utf8(page).is_ok(),
            last: &[],
            labels: Vec::with_capacity(8),
        }
    }

    /// The labels of the sample that was read last.
    pub fn labels(&self) -> &[Label<'a>] {
        &self.labels
    }

    /// Reads one line, without its line feed.
    pub fn read(&mut self, line: &'a [u8]) -> Result<Line<'a>, Fault> {
        if line.len() > MAX_LINE {
            return Err(Fault::LineTooLong);
        }
        let mut cursor = Cursor::new(line);
        let mut plain = cursor.no_blanks();
        match cursor.peek() {
            b'\n' => return Ok(Line::Nothing),
            b'#' => return comment(cursor),
            _ => {}
        }
        let name = cursor
            .known_name(self.last)
            .unwrap_or_else(|| cursor.name(METRIC_START, METRIC));
        if name.is_empty() {
            return Err(no_name(cursor));
        }
        self.last = name;
        self.labels.clear();
        let mut gap = cursor.blanks();
        if cursor.peek() == b'{' {
            plain &= gap.is_empty();
            plain &= braces(&mut cursor, self.utf8, &mut self.labels)?;
            gap = cursor.blanks();
        }
        plain &= gap == b" ";
        let value = cursor.word();
        if !is_float(value) {
            return Err(Fault::BadValue);
        }
        let mut timestamp = &[][..];
        if cursor.peek() != b'\n' {
            let gap = cursor.blanks();
            timestamp = cursor.word();
            plain &= gap == b" " && !timestamp.is_empty();
            plain &= cursor.no_blanks();
            if cursor.peek() != b'\n' || !(timestamp.is_empty() || is_timestamp(timestamp)) {
                return Err(Fault::BadTimestamp);
            }
        }
        Ok(Line::Sample(Sample {
            name,
            value,
            timestamp,
            plain,
        }))
    }
}

/// What is wrong with a line that does not start with a metric name.
fn no_name(mut cursor: Cursor<'_>) -> Fault {
    if cursor.peek() == b'{' {
        cursor.at += 1;
        cursor.blanks();
        if cursor.peek() == b'"' {
            return Fault::QuotedName;
        }
    }
    Fault::NoName
}

/// Reads the labels from `{` to `}`; whether they have the plain form.
fn braces<'a>(cursor: &mut Cursor<'a>, utf8: bool, labels: &mut Vec<Label<'a>>) -> Result<bool, Fault> {
    cursor.at += 1;
    let mut plain = cursor.no_blanks();
    if cursor.peek() == b'}' {
        cursor.at += 1;
        return Ok(false);
    }
    loop {
        if labels.len() == MAX_LABELS {
            return Err(Fault::TooManyLabels);
        }
        let start = cursor.at;
        let name = cursor.name(LABEL_START, LABEL);
        if name.is_empty() && cursor.peek() == b'"' {
            return Err(Fault::QuotedName);
        }
        plain &= cursor.no_blanks();
        if name.is_empty() || cursor.peek() != b'=' {
            return Err(Fault::MalformedLabel);
        }
        cursor.at += 1;
        plain &= cursor.no_blanks();
        if cursor.peek() != b'"' {
            return Err(Fault::MalformedLabel);
        }
        let (value, odd_escape) = quoted(cursor)?;
        if !utf8 && from_utf8(value).is_err() {
            return Err(Fault::NotUtf8);
        }
        if name == b"__name__" {
            return Err(Fault::ReservedLabel);
        }
        if labels.iter().any(|label| label.name == name) {
            return Err(Fault::RepeatedLabel);
        }
        labels.push(Label {
            name,
            value,
            whole: cursor.since(start),
            odd_escape,
        });

        plain &= cursor.no_blanks() & !odd_escape;
        let comma = cursor.peek() == b',';
        if comma {
            cursor.at += 1;
            plain &= cursor.no_blanks();
        }
        if cursor.peek() == b'}' {
            cursor.at += 1;
            return Ok(plain && !comma);
        }
        plain &= comma;
    }
}

/// Reads a label value from its opening to its closing quote: what is between them, and whether it has a backslash
/// that escapes nothing.
fn quoted<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], bool), Fault> {
    cursor.at += 1;
    let start = cursor.at;
    let mut odd_escape = false;
    loop {
        cursor.skip_unescaped();
        match cursor.peek() {
            b'"' => break,
            b'\\' => cursor.at += 1,
            _ => return Err(Fault::UnclosedLabel),
        }
        match cursor.peek() {
            b'\n' => return Err(Fault::UnclosedLabel),
            b'\\' | b'"' | b'n' => {}
            _ => odd_escape = true,
        }
        cursor.at += 1;
    }
    let value = cursor.since(start);
    cursor.at += 1;
    Ok((value, odd_escape))
}

/// Reads a line that starts with `#`. Only `# HELP ` and `# TYPE ` mean something, with the blanks, as Prometheus has
/// it.
fn comment<'a>(mut cursor: Cursor<'a>) -> Result<Line<'a>, Fault> {
    cursor.at += 1;
    let blanks = cursor.blanks();
    let keyword = cursor.word();
    if blanks.is_empty() || !matches!(keyword, b"HELP" | b"TYPE") || cursor.no_blanks() {
        return Ok(Line::Nothing);
    }
    if cursor.peek() == b'"' {
        return Err(Fault::QuotedName);
    }
    let name = cursor.name(METRIC_START, METRIC);
    let blanks = cursor.blanks();
    if name.is_empty() || (blanks.is_empty() && cursor.peek() != b'\n') {
        return Err(Fault::BadComment);
    }
    let text = cursor.rest();
    if keyword == b"HELP" {
        return Ok(Line::Help { name, text });
    }
    let word = text.trim_ascii_end();
    let known = Kind::ALL
        .into_iter()
        .find(|kind| kind.word().as_bytes().eq_ignore_ascii_case(word));
    known
        .map(|kind| Line::Type { name, kind })
        .ok_or(Fault::UnknownType)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, labels as written, value and timestamp of a sample, and whether it is plain.
    type Read = (String, Vec<(String, String)>, String, String, bool);

    fn sample(line: &str) -> Option<Read> {
        let mut lexer = Lexer::new(line.as_bytes());
        let Ok(Line::Sample(found)) = lexer.read(line.as_bytes()) else {
            return None;
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let labels = lexer
            .labels()
            .iter()
            .map(|label| (text(label.name), text(label.value)))
            .collect();
        Some((
            text(found.name),
            labels,
            text(found.value),
            text(found.timestamp),
            found.plain,
        ))
    }

    fn fault(line: impl AsRef<[u8]>) -> Option<Fault> {
        Lexer::new(line.as_ref()).read(line.as_ref()).err()
    }

    fn some(name: &str, labels: &[(&str, &str)], value: &str, timestamp: &str, plain: bool) -> Option<Read> {
        let labels = labels
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        Some((name.into(), labels, value.into(), timestamp.into(), plain))
    }

    #[test]
    fn plain_samples() {
        assert_eq!(sample("x 1"), some("x", &[], "1", "", true));
        assert_eq!(sample("a:b_9 +Inf 17"), some("a:b_9", &[], "+Inf", "17", true));
        assert_eq!(sample(":x 1e-9"), some(":x", &[], "1e-9", "", true));
        let two = &[("a", "}"), ("_b", r#"{,= \" \\ \n é"#)];
        assert_eq!(
            sample(r#"x{a="}",_b="{,= \" \\ \n é"} -5. 0"#),
            some("x", two, "-5.", "0", true)
        );
        assert_eq!(sample("x{a=\"\"} NaN"), some("x", &[("a", "")], "NaN", "", true));
        assert_eq!(sample("x{a=\"\0\"} 1"), some("x", &[("a", "\0")], "1", "", true));
    }

    /// A scrape by Prometheus 2.42 takes each of these (promtool does not).
    #[test]
    fn samples_in_other_forms() {
        for (line, labels) in [
            ("x{} 1", &[][..]),
            ("x{ } 1", &[]),
            ("x {} 1", &[]),
            ("x  1", &[]),
            ("x\t1", &[]),
            (" x 1", &[]),
            ("x 1 ", &[]),
            ("x{a=\"b\",} 1", &[("a", "b")]),
            ("x{a=\"b\"}1", &[("a", "b")]),
            ("x{a=\"b\"}\t1", &[("a", "b")]),
            ("x {a=\"b\"} 1", &[("a", "b")]),
            ("x{a =\"b\"} 1", &[("a", "b")]),
            ("x{a= \"b\"} 1", &[("a", "b")]),
            ("x{a=\"b\" } 1", &[("a", "b")]),
            ("x{ a=\"b\"} 1", &[("a", "b")]),
            ("x{a=\"b\" , c=\"d\"} 1", &[("a", "b"), ("c", "d")]),
            ("x{a=\"b\"c=\"d\"} 1", &[("a", "b"), ("c", "d")]),
            ("x{a=\"b\"\tc=\"d\",} 1", &[("a", "b"), ("c", "d")]),
            (r#"x{a="\q"} 1"#, &[("a", r"\q")]),
            (r#"x{a="\q" } 1"#, &[("a", r"\q")]),
            (r#"x{a="\é"} 1"#, &[("a", r"\é")]),
        ] {
            assert_eq!(sample(line), some("x", labels, "1", "", false), "{line}");
        }
        assert_eq!(sample("x+5"), some("x", &[], "+5", "", false));
        assert_eq!(sample("x.5"), some("x", &[], ".5", "", false));
        assert_eq!(sample("x 1  7"), some("x", &[], "1", "7", false));
        assert_eq!(sample("x 1 7\t"), some("x", &[], "1", "7", false));
    }

    #[test]
    fn faults_are_told_apart() {
        for (line, expected) in [
            ("{a=\"b\"} 1", Fault::NoName),
            ("1x 1", Fault::NoName),
            ("\"x\" 1", Fault::NoName),
            ("é 1", Fault::NoName),
            ("\0", Fault::NoName),
            ("x", Fault::BadValue),
            ("x ", Fault::BadValue),
            ("x{}", Fault::BadValue),
            ("x y", Fault::BadValue),
            ("x 1\r", Fault::BadValue),
            ("x 0x10", Fault::BadValue),
            ("xé 1", Fault::BadValue),
            ("x{a=\"b\"} {", Fault::BadValue),
            ("x 1 2 3", Fault::BadTimestamp),
            ("x 1 -2", Fault::BadTimestamp),
            ("x 1 2.5", Fault::BadTimestamp),
            ("x 1 # y", Fault::BadTimestamp),
            ("x{", Fault::MalformedLabel),
            ("x{,} 1", Fault::MalformedLabel),
            ("x{a=\"b\",,} 1", Fault::MalformedLabel),
            ("x{a} 1", Fault::MalformedLabel),
            ("x{a:b=\"c\"} 1", Fault::MalformedLabel),
            ("x{a=b} 1", Fault::MalformedLabel),
            ("x{a=\"b\"", Fault::MalformedLabel),
            ("{\"x.y\"} 1", Fault::QuotedName),
            (" { \"x.y\",a=\"b\"} 1", Fault::QuotedName),
            ("x{\"a\"=\"b\"} 1", Fault::QuotedName),
            ("x{a=\"b\", \"c.d\"=\"e\"} 1", Fault::QuotedName),
            ("# TYPE \"x.y\" gauge", Fault::QuotedName),
            ("# HELP \"x.y\" y", Fault::QuotedName),
            ("x{a=\"b} 1", Fault::UnclosedLabel),
            ("x{a=\"b\\\"} 1", Fault::UnclosedLabel),
            ("x{a=\"\\", Fault::UnclosedLabel),
            ("x{a=\"1234567\\", Fault::UnclosedLabel),
            ("x{a=\"b\",a=\"c\"} 1", Fault::RepeatedLabel),
            ("x{__name__=\"y\"} 1", Fault::ReservedLabel),
            ("# TYPE x", Fault::UnknownType),
            ("# TYPE x info", Fault::UnknownType),
            ("# TYPE 1x gauge", Fault::BadComment),
            ("# HELP {x} y", Fault::BadComment),
            ("# HELP x{ y", Fault::BadComment),
        ] {
            assert_eq!(fault(line), Some(expected), "{line:?}");
        }
        assert_eq!(fault(b"x{a=\"\xff\"} 1"), Some(Fault::NotUtf8));
    }

    #[test]
    fn limits_hold() {
        let labels = |count| (0..count).map(|at| format!("l{at}=\"\",")).collect::<String>();
        assert!(sample(&format!("x{{{}}} 1", labels(MAX_LABELS))).is_some());
        assert_eq!(
            fault(format!("x{{{}}} 1", labels(MAX_LABELS + 1))),
            Some(Fault::TooManyLabels)
        );
        let long = |len: usize| format!("x {}1", "0".repeat(len - 3));
        assert!(sample(&long(MAX_LINE)).is_some());
        assert_eq!(fault(long(MAX_LINE + 1)), Some(Fault::LineTooLong));
        assert_eq!(
            fault(format!("#{}", " ".repeat(MAX_LINE))),
            Some(Fault::LineTooLong)
        );
    }

    #[test]
    fn only_help_and_type_comments_are_read() {
        for nothing in [
            "",
            " ",
            "\t \t",
            "#",
            "# ",
            "#HELP x y",
            "#TYPE x gauge",
            "# HELP",
            "# TYPE",
            "# EOF",
            "# HELPx y z",
        ] {
            assert_eq!(
                Lexer::new(b"").read(nothing.as_bytes()),
                Ok(Line::Nothing),
                "{nothing:?}"
            );
        }
        let help = |text| Ok(Line::Help { name: b"x", text });
        assert_eq!(Lexer::new(b"").read(b"# HELP x a  b "), help(b"a  b "));
        assert_eq!(Lexer::new(b"").read(b" #\tHELP  x \t a"), help(b"a"));
        assert_eq!(Lexer::new(b"").read(b"# HELP x"), help(b""));
        for kind in Kind::ALL {
            let line = format!("# TYPE x {}", kind.word());
            assert_eq!(
                Lexer::new(b"").read(line.as_bytes()),
                Ok(Line::Type { name: b"x", kind })
            );
        }
        let gauge = Ok(Line::Type {
            name: &b"x"[..],
            kind: Kind::Gauge,
        });
        assert_eq!(Lexer::new(b"").read(b"# TYPE x  GAUGE "), gauge);
    }

    #[test]
    fn lines_with_and_without_an_end() {
        let all = |body: &'static str| lines(body.as_bytes()).collect::<Vec<_>>();
        assert_eq!(all(""), []);
        assert_eq!(all("\n"), [(0, &b""[..])]);
        assert_eq!(all("a\n\nbc"), [(0, &b"a"[..]), (2, b""), (3, b"bc")]);
        assert_eq!(all("a\nb\n"), [(0, &b"a"[..]), (2, b"b")]);
    }

    /// The previous name may be the start of the next one, or the other way round.
    #[test]
    fn a_name_is_read_whole_after_any_other() {
        let mut lexer = Lexer::new(b"");
        for (line, expected) in [
            ("x_sum 1", "x_sum"),
            ("x 1", "x"),
            ("x{} 1", "x"),
            ("x_sum 1", "x_sum"),
            ("x_sum:y 1", "x_sum:y"),
        ] {
            let Ok(Line::Sample(sample)) = lexer.read(line.as_bytes()) else {
                panic!("{line}")
            };
            assert_eq!(sample.name, expected.as_bytes());
        }
    }
}
