//! What the keys and the columns are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::theme::Theme;

const HELP: [(&str, &str); 22] = [
    ("up down j k", "select; PgUp PgDn, Home End (g G) go further"),
    (
        "enter",
        "fold or unfold a pod; left and right as well; f all pods",
    ),
    (
        "c m n b p a",
        "sort by CPU, memory, network, block I/O, pids, name (alphabet)",
    ),
    ("r", "sort the other way round; so does the same sort key again"),
    (
        "/",
        "show only what fits a text (id, pod, container, namespace); esc: all",
    ),
    ("space", "pause: nothing is asked; again: go on"),
    ("d", "the pane about the selected one, on and off"),
    ("ctrl-l ctrl-z", "draw anew; suspend"),
    ("q ctrl-c", "quit"),
    ("", ""),
    ("CPU%", "100 is one processor kept busy"),
    ("MEM", "working set: memory that cannot be reclaimed at once"),
    ("OF LIMIT", "its share of the container's memory limit"),
    (
        "RX/s TX/s",
        "bytes a second through the pod's network (host network: not its own)",
    ),
    ("RD/s WR/s", "bytes a second from and to block devices"),
    ("PIDS", "processes and threads"),
    ("THR%", "share of the periods in which a CPU quota held it back"),
    ("OOM", "processes killed for want of memory since it started"),
    ("-", "nobody measured it, or there is no rate yet"),
    ("HUNG", "its shim has not answered; it is asked again when it has"),
    ("", ""),
    ("", "any key: back"),
];

pub fn draw(theme: &Theme, area: Rect, buffer: &mut Buffer) {
    for (y, (keys, meaning)) in (area.y..area.bottom()).zip(HELP) {
        let room = usize::from(area.width);
        buffer.set_stringn(area.x, y, keys, room, theme.title());
        let indent = 15.min(area.width);
        let room = usize::from(area.width - indent);
        buffer.set_stringn(area.x + indent, y, theme.clip(meaning, room), room, theme.plain());
    }
}
