//! Colours and signs: for terminals with and without colour, with and without Unicode.

use std::env;

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::show::field::Mark;
use crate::show::text::escape;

/// How things look. Whatever a colour says, a sign or a word says too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    pub colour: bool,
    pub unicode: bool,
}

/// The levels of a graph in ASCII.
const ASCII_BARS: bar::Set = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "#",
    five_eighths: "#",
    half: "=",
    three_eighths: "=",
    one_quarter: "-",
    one_eighth: "_",
    empty: " ",
};

impl Theme {
    /// What this terminal can show: no colour if `NO_COLOR` is set (<https://no-color.org>), ASCII unless the locale is
    /// UTF-8.
    pub fn of_environment() -> Self {
        let value = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(value);
        Self {
            colour: value("NO_COLOR").is_none(),
            unicode: locale.is_some_and(|locale| {
                let locale = locale.to_string_lossy().to_lowercase();
                locale.contains("utf-8") || locale.contains("utf8")
            }),
        }
    }

    fn coloured(&self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    pub fn plain(&self) -> Style {
        Style::new()
    }

    /// What matters less, or is outdated.
    pub fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub fn title(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn heading(&self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub fn selected(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub fn good(&self) -> Style {
        self.coloured(Color::Green)
    }

    pub fn warning(&self) -> Style {
        self.coloured(Color::Yellow)
    }

    pub fn alarm(&self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// The style of a number that stands out.
    pub fn marked(&self, mark: Mark) -> Style {
        match mark {
            Mark::Warning => self.warning(),
            Mark::Alarm => self.alarm(),
        }
    }

    /// The full and the empty part of a bar.
    pub fn bar(&self) -> (&'static str, &'static str) {
        if self.unicode { ("█", "░") } else { ("#", ".") }
    }

    pub fn levels(&self) -> bar::Set<'static> {
        if self.unicode {
            bar::NINE_LEVELS
        } else {
            ASCII_BARS
        }
    }

    /// The sign before a pod, by whether its containers are hidden.
    pub fn fold(&self, folded: bool) -> &'static str {
        match (self.unicode, folded) {
            (true, true) => "▸ ",
            (true, false) => "▾ ",
            (false, true) => "+ ",
            (false, false) => "- ",
        }
    }

    /// The sign before a container of a pod.
    pub fn branch(&self, last: bool) -> &'static str {
        match (self.unicode, last) {
            (true, true) => "└ ",
            (true, false) => "├ ",
            (false, true) => "` ",
            (false, false) => "| ",
        }
    }

    /// The direction in which a column is sorted.
    pub fn arrow(&self, up: bool) -> &'static str {
        match (self.unicode, up) {
            (true, true) => "▲",
            (true, false) => "▼",
            (false, true) => "^",
            (false, false) => "v",
        }
    }

    pub fn rule(&self) -> &'static str {
        if self.unicode { "─" } else { "-" }
    }

    /// The text in at most this many columns, ending with a sign if it is cut. It may be untrusted text: it is made safe
    /// for a terminal here. Without Unicode, other characters than ASCII become question marks.
    pub fn clip(&self, text: &str, columns: usize) -> String {
        let text = escape(text);
        let text = if self.unicode {
            text.into_owned()
        } else {
            text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
        };
        if text.width() <= columns {
            return text;
        }
        let sign = if self.unicode { '…' } else { '~' };
        let mut left = columns.saturating_sub(1);
        let mut clipped: String = text
            .chars()
            .take_while(|character| {
                let width = character.width().unwrap_or(0);
                let fits = width <= left;
                left = left.saturating_sub(width);
                fits
            })
            .collect();
        if columns > 0 {
            clipped.push(sign);
        }
        clipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Theme = Theme {
        colour: true,
        unicode: true,
    };
    const ASCII: Theme = Theme {
        colour: false,
        unicode: false,
    };

    #[test]
    fn a_text_is_cut_by_columns_not_by_characters() {
        assert_eq!(UNICODE.clip("web", 3), "web");
        assert_eq!(UNICODE.clip("webapp", 4), "web…");
        // Each of these takes two columns.
        assert_eq!(UNICODE.clip("日本語", 6), "日本語");
        assert_eq!(UNICODE.clip("日本語", 5), "日本…");
        assert_eq!(UNICODE.clip("日本語", 4), "日…");
        assert_eq!(UNICODE.clip("web", 0), "");
        assert_eq!(ASCII.clip("wéb-app", 5), "w?b-~");
    }

    #[test]
    fn without_colour_there_is_none() {
        for style in [
            ASCII.good(),
            ASCII.warning(),
            ASCII.alarm(),
            ASCII.heading(),
            ASCII.selected(),
        ] {
            assert_eq!((style.fg, style.bg), (None, None));
        }
        assert_eq!(UNICODE.alarm().fg, Some(Color::Red));
    }

    #[test]
    fn every_sign_of_ascii_is_ascii() {
        let levels = ASCII.levels();
        let signs = [
            ASCII.bar().0,
            ASCII.bar().1,
            ASCII.fold(true),
            ASCII.fold(false),
            ASCII.branch(true),
        ];
        let more = [
            ASCII.branch(false),
            ASCII.arrow(true),
            ASCII.arrow(false),
            ASCII.rule(),
            levels.full,
            levels.half,
        ];
        assert!(signs.iter().chain(&more).all(|sign| sign.is_ascii()));
    }
}
