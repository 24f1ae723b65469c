//! JSON for people and pipelines alike: what a terminal would act on is escaped, which changes nothing of what the
//! JSON says.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::show::text::is_active;

/// On one line, with a newline.
pub fn line(value: &Value) -> Vec<u8> {
    write(value, Escaping(CompactFormatter))
}

/// Indented by four spaces, with a newline.
pub fn pretty(value: &Value) -> Vec<u8> {
    write(value, Escaping(PrettyFormatter::with_indent(b"    ")))
}

fn write(value: &Value, formatter: impl Formatter) -> Vec<u8> {
    let mut text = Vec::with_capacity(4096);
    // A JSON value has text keys only, and writing to memory does not fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut text, formatter));
    text.push(b'\n');
    text
}

/// A formatter that escapes what `serde_json` lets through: DEL, the C1 control characters (one of which is as good
/// as an escape sequence), and what changes the direction of writing or is not seen.
struct Escaping<F>(F);

macro_rules! passed_on {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$method(writer $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Printable ASCII, which nearly all of it is, is seen to be so without decoding it.
        let is_plain = fragment.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_plain || !fragment.chars().any(is_active) {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if is_active(character) {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            } else {
                writer.write_all(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
        Ok(())
    }

    passed_on! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
