//! The table: a line for each pod and container.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::row::Health;
use super::super::tree::{BY_NAME, Kind, Line, Tree, TreeOrder};
use super::theme::Theme;
use crate::show::field::{Field, Mark, Narrow, Value};
use crate::show::fields;

/// The minimum width of names; if there is less room, columns are left out.
const MIN_NAME: u16 = 14;
/// The maximum width of names, however wide the terminal is: numbers should not be far from them.
const MAX_NAME: u16 = 56;
/// How much wider a bar gets in a wide terminal.
const WIDER_BAR: u16 = 16;

/// The shares of the limit from which on the bar warns and alarms.
const WARNING: f64 = 0.75;
const ALARM: f64 = 0.9;

/// A column with its place.
struct TopColumn {
    field: &'static Field,
    top: Narrow,
    /// Its offset from the table's left side.
    at: u16,
    width: u16,
}

/// The places of the columns in a table of some width.
pub struct Plan {
    name: u16,
    columns: Vec<TopColumn>,
}

impl Plan {
    pub fn new(width: u16) -> Self {
        let columns = fields::TOP.iter().filter_map(|field| Some((*field, field.top?)));
        let mut chosen: Vec<_> = columns.collect();
        let taken = |chosen: &[(_, Narrow)]| chosen.iter().map(|(_, top)| top.width + 1).sum::<u16>();
        while !chosen.is_empty() && taken(&chosen) + MIN_NAME > width {
            chosen.pop();
        }
        let room = width.saturating_sub(taken(&chosen));
        let name = room.min(MAX_NAME);
        let wider = (room - name).min(WIDER_BAR);
        let mut at = name;
        let columns = chosen
            .into_iter()
            .map(|(field, top)| {
                let width = top.width + if is_bar(field) { wider } else { 0 };
                at += 1 + width;
                TopColumn {
                    field,
                    top,
                    at: at - width,
                    width,
                }
            })
            .collect();
        Self { name, columns }
    }
}

fn is_bar(field: &Field) -> bool {
    matches!(field.value, Value::Share(..))
}

/// Draws the headings.
pub fn headings(plan: &Plan, order: &TreeOrder, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let arrow = |key: Option<char>| match key == Some(order.sort) {
        true => theme.arrow(order.reverse),
        false => "",
    };
    let name = format!("NAME{}", arrow(Some(BY_NAME)));
    buffer.set_stringn(area.x, area.y, name, usize::from(plan.name), theme.heading());
    for column in &plan.columns {
        let heading = format!(
            "{}{}",
            column.top.heading,
            arrow(column.top.sort.map(|sort| sort.key))
        );
        right(buffer, column.place(area), &heading, theme.heading());
    }
}

/// Draws a line.
pub fn line(
    plan: &Plan,
    tree: &Tree,
    line: &Line,
    selected: bool,
    theme: &Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    let health = tree.row(line).map(|row| &row.health);
    let word = health.and_then(word);
    let base = if word.is_some() {
        theme.dim()
    } else {
        theme.plain()
    };
    let room = usize::from(plan.name);
    let text = theme.clip(&name(tree, line, health, theme), room);
    buffer.set_stringn(area.x, area.y, text, room, base);
    match &word {
        Some(word) => {
            let room = usize::from(area.width.saturating_sub(plan.name + 1));
            let text = theme.clip(word, room);
            buffer.set_stringn(area.x + plan.name + 1, area.y, text, room, base);
        }
        None => numbers(plan, tree, line, theme, area, buffer),
    }
    if selected {
        buffer.set_style(area, theme.selected());
    }
    if word.is_none() {
        // Drawn after that, since the empty part of a reversed bar would look full.
        for column in plan.columns.iter().filter(|column| is_bar(column.field)) {
            bar(tree.number(line, column.field), theme, column.place(area), buffer);
        }
    }
}

fn name(tree: &Tree, line: &Line, health: Option<&Health>, theme: &Theme) -> String {
    let sign = match line.kind {
        Kind::Pod { folded, .. } => theme.fold(folded),
        Kind::Member { last, .. } => theme.branch(last),
        Kind::Plain => "  ",
    };
    let count = match line.kind {
        Kind::Pod {
            folded: true,
            members,
        } => format!(" [{members}]"),
        _ => String::new(),
    };
    let note = match health {
        Some(Health::Answers(Some(word))) => format!(" ({word})"),
        _ => String::new(),
    };
    format!("{sign}{}{count}{note}", tree.name(line))
}

/// What is shown instead of numbers, if there are none.
fn word(health: &Health) -> Option<String> {
    match health {
        Health::Waiting | Health::Answers(_) | Health::Unmeasured => None,
        Health::Hung(why) => Some(format!("HUNG: {why}")),
        Health::Stopped(why) => Some(why.clone()),
        Health::Failed(why) => Some(format!("error: {why}")),
    }
}

fn numbers(plan: &Plan, tree: &Tree, line: &Line, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let in_pod = matches!(line.kind, Kind::Member { .. });
    for column in &plan.columns {
        let Value::Number(unit, _) = column.field.value else {
            continue;
        };
        if in_pod && column.top.shared_in_pod {
            continue;
        }
        let place = column.place(area);
        match tree.number(line, column.field) {
            Some(number) => {
                let mark = column.top.mark.filter(|(from, _)| number >= *from);
                let style = mark.map_or(theme.plain(), |(_, mark)| theme.marked(mark));
                right(buffer, place, &unit.narrow(number), style);
            }
            None => right(buffer, place, "-", theme.dim()),
        }
    }
}

/// The share of the memory limit that is used.
fn bar(share: Option<f64>, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let Some(share) = share else {
        right(buffer, area, "-", theme.dim());
        return;
    };
    let full = ((share * f64::from(area.width)).round() as u16).min(area.width);
    let style = match share {
        share if share >= ALARM => theme.marked(Mark::Alarm),
        share if share >= WARNING => theme.marked(Mark::Warning),
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

impl TopColumn {
    fn place(&self, line: Rect) -> Rect {
        Rect::new(line.x + self.at, line.y, self.width, 1)
    }
}

/// Draws a text at the right end of its column.
fn right(buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
    let columns = u16::try_from(text.chars().count())
        .unwrap_or(area.width)
        .min(area.width);
    let x = area.x + area.width - columns;
    buffer.set_stringn(x, area.y, text, usize::from(area.width), style);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_columns_have_room_for_all_and_nothing_overlaps() {
        for width in 0..400 {
            let plan = Plan::new(width);
            let mut end = plan.name;
            for column in &plan.columns {
                assert_eq!(column.at, end + 1);
                end = column.at + column.width;
            }
            assert!(end <= width, "{width}");
            assert_eq!(plan.columns.len() == fields::TOP.len(), width >= 75, "{width}");
        }
        assert_eq!(Plan::new(80).name, 19);
        assert_eq!(Plan::new(200).name, MAX_NAME);
    }

    #[test]
    fn a_narrow_terminal_keeps_the_columns_that_matter_most() {
        let plan = Plan::new(40);
        let kept: Vec<_> = plan.columns.iter().map(|column| column.top.heading).collect();
        assert_eq!(kept, ["CPU%", "MEM", "OF LIMIT"]);
    }
}
