//! The table: a line for each pod and container.

use crate::show::units;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::row::{Figures, Health, Row};
use super::super::tree::{Kind, Line, Order, Sort};
use super::theme::Theme;

/// The name is cut no shorter than this; columns are left out before.
const MIN_NAME: u16 = 14;
/// A longer name is cut, however wide the terminal is: its numbers shall not be far from it.
const MAX_NAME: u16 = 56;
/// The bar's width in a terminal of 80 columns, and the widest.
const BAR: u16 = 8;
const MAX_BAR: u16 = 24;

/// From a share of the limit on, the bar warns and alarms.
const WARNING: f64 = 0.75;
const ALARM: f64 = 0.9;

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Cpu,
    Memory,
    Bar,
    Rx,
    Tx,
    Read,
    Write,
    Pids,
    Throttled,
    OomKills,
}

/// In their order, with their widths; the last of those that do not fit are left out.
const COLUMNS: [(Column, u16); 10] = [
    (Column::Cpu, 5),
    (Column::Memory, 5),
    (Column::Bar, BAR),
    (Column::Rx, 5),
    (Column::Tx, 5),
    (Column::Read, 5),
    (Column::Write, 5),
    (Column::Pids, 5),
    (Column::Throttled, 4),
    (Column::OomKills, 4),
];

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Self::Cpu => "CPU%",
            Self::Memory => "MEM",
            Self::Bar => "OF LIMIT",
            Self::Rx => "RX/s",
            Self::Tx => "TX/s",
            Self::Read => "RD/s",
            Self::Write => "WR/s",
            Self::Pids => "PIDS",
            Self::Throttled => "THR%",
            Self::OomKills => "OOM",
        }
    }

    fn is_sorted(self, sort: Sort) -> bool {
        match sort {
            Sort::Cpu => self == Self::Cpu,
            Sort::Memory => self == Self::Memory,
            Sort::Network => self == Self::Rx,
            Sort::Block => self == Self::Read,
            Sort::Pids => self == Self::Pids,
            Sort::Name => false,
        }
    }
}

/// Where the columns are in a table of a width.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    name: u16,
    /// Each with its first column of the screen, from the table's left, and its width.
    columns: Vec<(Column, u16, u16)>,
}

impl Plan {
    pub fn new(width: u16) -> Self {
        let mut chosen = COLUMNS.to_vec();
        let taken = |chosen: &[(Column, u16)]| chosen.iter().map(|(_, width)| width + 1).sum::<u16>();
        while !chosen.is_empty() && taken(&chosen) + MIN_NAME > width {
            chosen.pop();
        }
        let room = width.saturating_sub(taken(&chosen));
        let name = room.min(MAX_NAME);
        let more = (room - name).min(MAX_BAR - BAR);
        let mut at = name;
        let columns = chosen
            .into_iter()
            .map(|(column, width)| {
                let width = if column == Column::Bar {
                    width + more
                } else {
                    width
                };
                at += 1 + width;
                (column, at - width, width)
            })
            .collect();
        Self { name, columns }
    }
}

/// Draws the headings.
pub fn headings(plan: &Plan, order: &Order, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let arrow = theme.arrow(order.reverse);
    let name = if order.sort == Sort::Name {
        format!("NAME{arrow}")
    } else {
        "NAME".to_string()
    };
    buffer.set_stringn(area.x, area.y, name, usize::from(plan.name), theme.heading());
    for (column, at, width) in &plan.columns {
        let mut heading = column.heading().to_string();
        if column.is_sorted(order.sort) {
            heading = format!("{heading}{arrow}");
        }
        right(buffer, area.x + at, area.y, *width, &heading, theme.heading());
    }
}

/// Draws a line.
pub fn line(
    plan: &Plan,
    row: &Row,
    line: &Line,
    selected: bool,
    theme: &Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    let silent = !matches!(row.health, Health::Answers(_) | Health::Waiting);
    let base = if silent { theme.dim() } else { theme.plain() };
    let text = name(row, line, theme);
    buffer.set_stringn(
        area.x,
        area.y,
        theme.clip(&text, usize::from(plan.name)),
        usize::from(plan.name),
        base,
    );
    match word(&row.health) {
        Some(word) => {
            let room = area.width.saturating_sub(plan.name + 1);
            let text = theme.clip(&word, usize::from(room));
            buffer.set_stringn(area.x + plan.name + 1, area.y, text, usize::from(room), base);
        }
        None => figures(
            plan,
            &line.figures,
            matches!(line.kind, Kind::Member { .. }),
            theme,
            area,
            buffer,
        ),
    }
    if selected {
        buffer.set_style(area, theme.selected());
    }
    // After that: turned round, the empty part of a bar would look full.
    let place = plan.columns.iter().find(|(column, ..)| *column == Column::Bar);
    if let (Some((_, at, width)), None) = (place, word(&row.health)) {
        bar(
            &line.figures,
            theme,
            Rect::new(area.x + at, area.y, *width, 1),
            buffer,
        );
    }
}

fn name(row: &Row, line: &Line, theme: &Theme) -> String {
    let note = match row.health {
        Health::Answers(Some(word)) => format!(" ({word})"),
        _ => String::new(),
    };
    match line.kind {
        Kind::Pod { folded, members } => {
            let count = if folded {
                format!(" [{members}]")
            } else {
                String::new()
            };
            format!("{}{}{count}{note}", theme.fold(folded), row.title())
        }
        Kind::Member { last } => format!("{}{}{note}", theme.branch(last), row.container_name()),
        Kind::Plain => format!("  {}{note}", row.title()),
    }
}

/// What stands in place of the figures, where there are none.
fn word(health: &Health) -> Option<String> {
    match health {
        Health::Waiting | Health::Answers(_) => None,
        Health::Hung(why) => Some(format!("HUNG: {why}")),
        Health::Stopped(why) => Some(why.clone()),
        Health::Failed(why) => Some(format!("error: {why}")),
    }
}

fn figures(plan: &Plan, figures: &Figures, in_pod: bool, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    for (column, at, width) in &plan.columns {
        let x = area.x + at;
        if *column == Column::Bar {
            continue;
        }
        // The network is the pod's: it stands with the pod.
        if in_pod && matches!(column, Column::Rx | Column::Tx) {
            continue;
        }
        let (text, style) = cell(*column, figures, theme);
        match text {
            Some(text) => right(buffer, x, area.y, *width, &text, style),
            None => right(buffer, x, area.y, *width, "-", theme.dim()),
        }
    }
}

fn cell(column: Column, figures: &Figures, theme: &Theme) -> (Option<String>, Style) {
    let plain = theme.plain();
    let rate = |rate: Option<f64>| (rate.map(|rate| units::compact(rate.round() as u64)), plain);
    match column {
        Column::Cpu => (figures.cpu.map(number), plain),
        Column::Memory => (figures.memory.map(units::compact), plain),
        Column::Bar => (None, plain),
        Column::Rx => rate(figures.rx),
        Column::Tx => rate(figures.tx),
        Column::Read => rate(figures.read),
        Column::Write => rate(figures.write),
        Column::Pids => (figures.pids.map(|pids| pids.to_string()), plain),
        Column::Throttled => {
            let held_back = figures.throttled.is_some_and(|share| share >= 0.005);
            let style = if held_back { theme.warning() } else { plain };
            (
                figures.throttled.map(|share| format!("{:.0}", share * 100.0)),
                style,
            )
        }
        Column::OomKills => {
            let killed = figures.oom_kills.is_some_and(|kills| kills > 0);
            let style = if killed { theme.alarm() } else { plain };
            (figures.oom_kills.map(|kills| kills.to_string()), style)
        }
    }
}

/// Per cent without the sign, which the heading has.
pub fn number(percent: f64) -> String {
    units::percent(percent).trim_end_matches('%').to_string()
}

/// How much of its limit the memory takes.
fn bar(figures: &Figures, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let (Some(memory), Some(limit)) = (figures.memory, figures.limit.filter(|limit| *limit > 0)) else {
        right(buffer, area.x, area.y, area.width, "-", theme.dim());
        return;
    };
    let share = memory as f64 / limit as f64;
    let full = ((share * f64::from(area.width)).round() as u16).min(area.width);
    let style = match share {
        share if share >= ALARM => theme.alarm(),
        share if share >= WARNING => theme.warning(),
        _ => theme.good(),
    };
    let (sign, rest) = theme.bar();
    for column in 0..area.width {
        let (sign, style) = if column < full {
            (sign, style)
        } else {
            (rest, theme.dim())
        };
        let style = style.remove_modifier(Modifier::REVERSED);
        buffer.set_stringn(area.x + column, area.y, sign, 1, style);
    }
}

/// A text at the right end of its column.
fn right(buffer: &mut Buffer, x: u16, y: u16, width: u16, text: &str, style: Style) {
    let columns = u16::try_from(text.chars().count()).unwrap_or(width).min(width);
    buffer.set_stringn(x + width - columns, y, text, usize::from(width), style);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_columns_have_room_for_all_and_nothing_overlaps() {
        for width in 0..400 {
            let plan = Plan::new(width);
            let mut end = plan.name;
            for (_, at, width) in &plan.columns {
                assert_eq!(*at, end + 1);
                end = at + width;
            }
            assert!(end <= width, "{width}");
            assert_eq!(plan.columns.len() == COLUMNS.len(), width >= 75, "{width}");
        }
        assert_eq!(Plan::new(80).name, 19);
        assert_eq!(Plan::new(200).name, MAX_NAME);
    }

    #[test]
    fn a_narrow_terminal_keeps_the_columns_that_matter_most() {
        let kept: Vec<Column> = Plan::new(40).columns.iter().map(|(column, ..)| *column).collect();
        assert_eq!(kept, [Column::Cpu, Column::Memory, Column::Bar]);
    }
}
