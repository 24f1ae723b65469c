//! JSON for people and pipelines: what a terminal would act on is escaped, which does not change what the JSON means.

use std::fmt::Write;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::show::text::is_active;

/// On one line, with a newline.
pub fn line(value: &impl Serialize) -> Vec<u8> {
    write(value, CompactFormatter)
}

/// Indented by four spaces, with a newline.
pub fn pretty(value: &impl Serialize) -> Vec<u8> {
    write(value, PrettyFormatter::with_indent(b"    "))
}

fn write(value: &impl Serialize, formatter: impl Formatter) -> Vec<u8> {
    let mut json = Vec::with_capacity(4096);
    let written = value.serialize(&mut Serializer::with_formatter(&mut json, formatter));
    debug_assert!(
        written.is_ok(),
        "keys are text, and writing to memory does not fail"
    );
    json.push(b'\n');
    escape(json)
}

/// Escapes what `serde_json` lets through: DEL, the C1 control characters (one of which is as good as an escape
/// sequence), and what is invisible or changes the direction of writing. All of it can only occur in JSON's strings.
fn escape(json: Vec<u8>) -> Vec<u8> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n');
    if json.iter().all(is_plain) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for character in String::from_utf8_lossy(&json).chars() {
        // A line break is between values: in a string `serde_json` has escaped it.
        if character == '\n' || !is_active(character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_a_terminal_acts_on_is_escaped_and_says_the_same() {
        let name = "a\u{1b}[31m\u{7f}\u{9b}2J\u{202e}\u{e0041}\"日本\\";
        for text in [
            line(&json!({ name: [name, 1.5] })),
            pretty(&json!({ name: [name, 1.5] })),
        ] {
            let text = String::from_utf8(text).unwrap();
            assert!(
                !text.chars().any(|c| is_active(c) && c != '\n'),
                "{}",
                text.escape_debug()
            );
            assert!(text.contains("日本") && text.contains("\\u009b2J") && text.contains("\\udb40\\udc41"));
            assert_eq!(
                serde_json::from_str::<Value>(&text).unwrap(),
                json!({ name: [name, 1.5] })
            );
        }
    }

    #[test]
    fn a_line_is_one_line_and_the_other_is_indented_by_four() {
        let value = json!({"b": [1, {}], "a": []});
        assert_eq!(line(&value), b"{\"a\":[],\"b\":[1,{}]}\n");
        let expected = "{\n    \"a\": [],\n    \"b\": [\n        1,\n        {}\n    ]\n}\n";
        assert_eq!(String::from_utf8(pretty(&value)).unwrap(), expected);
    }
}
