//! Text from elsewhere (shims, pods, files), made safe for a terminal.

use std::borrow::Cow;

/// Escapes every character that a terminal would act on, or that would make the text look like another: control
/// characters, invisible ones, and those that change the direction of writing.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_active(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal acts on the character, or it makes the text look like another.
pub fn is_active(character: char) -> bool {
    character.is_control()
        // Marks, embeddings, overrides and isolates of direction; line and paragraph separators; the byte
        // order mark and other invisible format characters.
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_passes_untouched() {
        assert!(matches!(
            escape("pod µ-1 \"日本\""),
            Cow::Borrowed("pod µ-1 \"日本\"")
        ));
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_passes() {
        assert_eq!(
            escape("a\x1b[31mred\x07\r\n\t\x7f\u{9b}b"),
            "a\\u{1b}[31mred\\u{7}\\r\\n\\t\\u{7f}\\u{9b}b"
        );
        assert_eq!(escape("gpj.exe\u{202e}"), "gpj.exe\\u{202e}");
        let every: String = (0..=0x10ffff).filter_map(char::from_u32).collect();
        assert!(!escape(&every).chars().any(char::is_control));
    }
}
