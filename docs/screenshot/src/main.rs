//! Draws a captured terminal as an SVG: `tmux capture-pane -p -e | cargo run -p terminal-svg -- COLUMNS > x.svg`.
//!
//! Understands the styles that `kata-runtime top` uses (bold, dim, reversed, the eight colours). Every piece of text is
//! put where its column is, and bars are drawn, so that it looks the same whatever the reader's font is.

#![allow(clippy::restriction)] // A tool for the documentation may panic.

use std::fmt::Write as _;
use std::io::Read;

use unicode_width::UnicodeWidthChar;

/// The size of a cell, in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;
/// From the top of a cell to the line that letters stand on.
const BASELINE: f64 = 13.5;
const MARGIN: f64 = 12.0;

const BACKGROUND: &str = "#15191f";
const FOREGROUND: &str = "#d5dae1";
const COLOURS: [&str; 8] = [
    "#15191f", "#ff6b68", "#6fc36f", "#e5c15a", "#6aa5ff", "#cf8ef4", "#5cc5d6", "#d5dae1",
];

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Style {
    colour: Option<usize>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

impl Style {
    fn apply(&mut self, codes: &str) {
        for code in codes.split(';').map(|code| code.parse().unwrap_or(0)) {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                27 => self.reversed = false,
                30..=37 => self.colour = Some(code - 30),
                39 => self.colour = None,
                _ => {}
            }
        }
    }

    fn ink(&self) -> &'static str {
        if self.reversed {
            return BACKGROUND;
        }
        self.colour
            .and_then(|colour| COLOURS.get(colour))
            .copied()
            .unwrap_or(FOREGROUND)
    }

    /// What is behind the letters, where that is not the background.
    fn ground(&self) -> &'static str {
        self.colour
            .and_then(|colour| COLOURS.get(colour))
            .copied()
            .unwrap_or(FOREGROUND)
    }
}

fn main() {
    let columns: usize = std::env::args()
        .nth(1)
        .and_then(|columns| columns.parse().ok())
        .unwrap_or(80);
    let mut capture = String::new();
    std::io::stdin()
        .read_to_string(&mut capture)
        .expect("a capture in UTF-8");
    println!("{}", svg(&capture, columns));
}

fn svg(capture: &str, columns: usize) -> String {
    let lines: Vec<&str> = capture.lines().collect();
    let (width, height) = (
        columns as f64 * WIDTH + 2.0 * MARGIN,
        lines.len() as f64 * HEIGHT + 2.0 * MARGIN,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    let mut style = Style::default();
    for (row, line) in lines.iter().enumerate() {
        draw_line(line, MARGIN + row as f64 * HEIGHT, &mut style, &mut out);
    }
    out + "</svg>"
}

/// A line is drawn piece by piece: text of one style, bars a cell at a time.
fn draw_line(line: &str, y: f64, style: &mut Style, out: &mut String) {
    let (mut column, mut begin, mut text) = (0, 0, String::new());
    let mut rest = line;
    while let Some(character) = rest.chars().next() {
        if let Some((codes, after)) = rest.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m')) {
            piece(&mut text, begin, column, y, style, out);
            begin = column;
            style.apply(codes);
            rest = after;
            continue;
        }
        rest = &rest[character.len_utf8()..];
        let cells = character.width().unwrap_or(0);
        if let Some((top, opacity)) = block(character) {
            piece(&mut text, begin, column, y, style, out);
            if style.reversed {
                cell(column, 1, y, HEIGHT, style.ground(), 1.0, out);
            }
            cell(
                column,
                1,
                y + HEIGHT * top,
                HEIGHT * (1.0 - top),
                style.ink(),
                opacity * opacity_of(style),
                out,
            );
            begin = column + cells;
        } else {
            text.push(character);
        }
        column += cells;
    }
    piece(&mut text, begin, column, y, style, out);
}

/// Of a block: where it begins, as a share of the cell's height, and how dense it is.
fn block(character: char) -> Option<(f64, f64)> {
    match character {
        '░' => Some((0.0, 0.35)),
        // Lower one eighth to full.
        '\u{2581}'..='\u{2588}' => Some((1.0 - f64::from(character as u32 - 0x2580) / 8.0, 1.0)),
        _ => None,
    }
}

fn opacity_of(style: &Style) -> f64 {
    if style.dim { 0.55 } else { 1.0 }
}

fn cell(column: usize, cells: usize, y: f64, height: f64, fill: &str, opacity: f64, out: &mut String) {
    let (x, width) = (MARGIN + column as f64 * WIDTH, cells as f64 * WIDTH);
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\" fill-opacity=\"{opacity:.2}\" shape-rendering=\"crispEdges\"/>"
    );
}

fn piece(text: &mut String, begin: usize, end: usize, y: f64, style: &Style, out: &mut String) {
    let text = std::mem::take(text);
    let cells = end.saturating_sub(begin);
    if cells == 0 {
        return;
    }
    if style.reversed {
        cell(begin, cells, y, HEIGHT, style.ground(), 1.0, out);
    }
    let blanks = text.len() - text.trim_start().len();
    let shown = text.trim();
    if shown.is_empty() {
        return;
    }
    let shown_cells: usize = shown.chars().filter_map(UnicodeWidthChar::width).sum();
    let escaped = shown
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let weight = if style.bold { " font-weight=\"bold\"" } else { "" };
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" textLength=\"{:.1}\" xml:space=\"preserve\" fill=\"{}\" fill-opacity=\"{:.2}\"{weight}>{escaped}</text>",
        MARGIN + (begin + blanks) as f64 * WIDTH,
        y + BASELINE,
        shown_cells as f64 * WIDTH,
        style.ink(),
        opacity_of(style),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_at_its_column_in_its_style() {
        let drawn = svg("  a<b \x1b[1;31mred\x1b[0m", 12);
        assert!(drawn.contains(">a&lt;b</text>"));
        let x = MARGIN + 6.0 * WIDTH;
        assert!(drawn.contains(&format!("<text x=\"{x:.1}\"")), "{drawn}");
        assert!(
            drawn.contains("fill=\"#ff6b68\" fill-opacity=\"1.00\" font-weight=\"bold\">red<"),
            "{drawn}"
        );
    }

    #[test]
    fn bars_are_drawn() {
        let drawn = svg("\u{2584}", 1);
        // The lower half of the cell.
        assert!(
            drawn.contains(&format!(
                "y=\"{:.1}\" width=\"{WIDTH:.1}\" height=\"{:.1}\"",
                MARGIN + HEIGHT / 2.0,
                HEIGHT / 2.0
            )),
            "{drawn}"
        );
    }
}
