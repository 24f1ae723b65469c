//! Tables for people: columns as wide as they need be, two blanks between them, and nothing of a cell that a terminal
//! would act on.

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};

use crate::terminal::escape;

/// On which side of its column a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a header.
pub struct Table(Grid);

impl Table {
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let mut grid = Grid::new();
        grid.load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(columns.iter().map(|(title, _)| *title));
        for (column, (_, align)) in grid.column_iter_mut().zip(columns) {
            column.set_padding((0, 2)).set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Self(grid)
    }

    /// Adds a row. Its texts may come from anywhere: they are made safe for a terminal here.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0
            .add_row(cells.into_iter().map(|cell| escape(cell.as_ref()).into_owned()));
    }
}

/// The lines, without blanks at their ends and without the last newline.
impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_be() {
        let mut table = Table::new(&[("ID", Align::Left), ("PID", Align::Right), ("AGE", Align::Left)]);
        table.row(["abc", "7", "5s"]);
        table.row(["  日本", "1234", "-"]);
        let expected = "ID       PID  AGE\nabc        7  5s\n  日本  1234  -";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_cell_cannot_act_on_a_terminal_or_break_its_line() {
        let mut table = Table::new(&[("POD", Align::Left)]);
        table.row(["a\x1b[2J\nb\u{9b}1m"]);
        assert_eq!(table.to_string(), "POD\na\\u{1b}[2J\\nb\\u{9b}1m");
    }
}
