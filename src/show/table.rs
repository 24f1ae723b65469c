//! Tables for people: columns as wide as necessary, two blanks between them, and every cell made safe for a terminal.

use unicode_width::UnicodeWidthStr;

use crate::show::text::escape;

/// Between two columns.
const GAP: &str = "  ";

/// Which side of its column a text is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a header.
pub struct Table {
    columns: Vec<Column>,
    /// All cells, row by row, the header's first.
    cells: Vec<String>,
}

struct Column {
    align: Align,
    width: usize,
}

impl Table {
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Align)>) -> Self {
        let (headings, columns): (Vec<_>, _) = columns
            .into_iter()
            .map(|(heading, align)| (heading, Column { align, width: 0 }))
            .unzip();
        let mut table = Self {
            columns,
            cells: Vec::new(),
        };
        table.row(headings);
        table
    }

    /// Leaves the headings out.
    pub fn without_headings(mut self) -> Self {
        self.cells.clear();
        for column in &mut self.columns {
            column.width = 0;
        }
        self
    }

    /// The rows so far, each on a line. Those that are added later are at least as wide.
    pub fn take_lines(&mut self) -> String {
        let lines = self.lines();
        self.cells.clear();
        lines
    }

    /// Adds a row with a cell for each column. Cells may be untrusted text: they are made safe for a terminal here.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            let cell = cells
                .next()
                .map_or_else(String::new, |cell| escape(cell.as_ref()).into_owned());
            column.width = column.width.max(cell.width());
            self.cells.push(cell);
        }
    }

    /// The rows, each on a line, without trailing blanks.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for row in self.cells.chunks(self.columns.len().max(1)) {
            let cells = self.columns.iter().zip(row);
            let padded: Vec<_> = cells
                .map(|(column, cell)| pad(cell, column.width, column.align))
                .collect();
            lines += padded.join(GAP).trim_end();
            lines.push('\n');
        }
        lines
    }
}

/// Pads a text with blanks to at least this many terminal columns.
pub fn pad(text: &str, width: usize, align: Align) -> String {
    let blanks = " ".repeat(width.saturating_sub(text.width()));
    match align {
        Align::Left => format!("{text}{blanks}"),
        Align::Right => format!("{blanks}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_be() {
        let mut table = Table::new([("ID", Align::Left), ("PID", Align::Right), ("AGE", Align::Left)]);
        table.row(["abc", "7", "5s"]);
        table.row(["  日本", "1234", "-"]);
        let expected = "ID       PID  AGE\nabc        7  5s\n  日本  1234  -\n";
        assert_eq!(table.take_lines(), expected);
        table.row(["x", "1", ""]);
        assert_eq!(table.lines(), "x          1\n", "as wide as before");
    }

    #[test]
    fn a_cell_cannot_act_on_a_terminal_or_break_its_line() {
        let mut table = Table::new([("POD", Align::Left)]);
        table.row(["a\x1b[2J\nb\u{9b}1m"]);
        assert_eq!(table.lines(), "POD\na\\u{1b}[2J\\nb\\u{9b}1m\n");
    }
}
