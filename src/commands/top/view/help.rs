//! What the keys and the columns are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::theme::Theme;
use crate::show::fields;

const KEYS: [(&str, &str); 10] = [
    (
        "up down j k",
        "select; PgUp and PgDn by pages, Home and End (g, G) to the ends",
    ),
    ("enter", "fold or unfold a pod, as left and right do; f folds all"),
    (
        "c m n b p a",
        "sort by CPU, memory, network, block I/O, pids, name",
    ),
    ("r", "reverse the order, as the same sort key again does"),
    ("/", "filter by id, pod, container or namespace; esc shows all"),
    ("space", "pause; nothing is asked until you press it again"),
    ("d", "show or hide the pane about the selected line"),
    ("ctrl-l ctrl-z", "redraw; suspend"),
    ("q ctrl-c", "quit"),
    ("", ""),
];

const SIGNS: [(&str, &str); 2] = [
    ("-", "not measured, or a rate that needs a second look"),
    (
        "HUNG",
        "its shim has not answered, and is not asked again until it does",
    ),
];

/// The width of what is explained.
const INDENT: u16 = 15;

pub fn draw(theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let columns = fields::TOP.iter().filter_map(|field| field.top);
    let lines = KEYS
        .into_iter()
        .chain(columns.map(|column| (column.heading, column.about)))
        .chain(SIGNS);
    for (y, (what, meaning)) in (area.y..area.bottom()).zip(lines) {
        buffer.set_stringn(area.x, y, what, usize::from(area.width), theme.title());
        let indent = INDENT.min(area.width);
        let room = usize::from(area.width - indent);
        buffer.set_stringn(area.x + indent, y, theme.clip(meaning, room), room, theme.plain());
    }
}
