//! Draws the view into a buffer of cells. No I/O.

mod detail;
mod help;
mod table;
mod theme;

use crate::show::units;
use go_duration as duration;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use shimstat::survey::Hidden;

use super::input::Mode;
use super::model::Model;
pub use theme::Theme;

/// Below this height the pane would leave too little room for the table.
const HEIGHT_FOR_DETAILS: u16 = 18;

const KEYS: &str = "q quit  ? help  / filter  cmnbpa sort  r reverse  enter fold  space pause";

/// Draws everything.
pub fn draw(model: &mut Model, theme: &Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    buffer.reset();
    if area.width < 20 || area.height < 4 {
        buffer.set_stringn(
            area.x,
            area.y,
            "too small",
            usize::from(area.width),
            theme.plain(),
        );
        return;
    }
    let line = |y: u16| Rect::new(area.x, y, area.width, 1);
    summary(model, theme, line(area.y), buffer);
    footer(model, theme, line(area.bottom() - 1), buffer);
    let body = Rect {
        y: area.y + 1,
        height: area.height - 2,
        ..area
    };
    if model.mode == Mode::Help {
        help::draw(theme, body, buffer);
        return;
    }
    let details = if model.details && area.height >= HEIGHT_FOR_DETAILS {
        detail::height(model)
    } else {
        0
    };
    let plan = table::Plan::new(area.width);
    table::headings(&plan, &model.order, theme, line(body.y), buffer);
    let room = usize::from(body.height - 1 - details);
    let (lines, place) = model.lines();
    scroll(model, lines.len(), place, room);
    let shown = lines.iter().enumerate().skip(model.offset).take(room);
    for (y, (index, shown)) in (body.y + 1..).zip(shown) {
        table::line(&plan, &model.tree, shown, index == place, theme, line(y), buffer);
    }
    if lines.is_empty() {
        let text = if model.order.filter.is_empty() {
            "no containers on this node"
        } else {
            "nothing matches the filter"
        };
        buffer.set_stringn(area.x, body.y + 1, text, usize::from(area.width), theme.dim());
    }
    if details > 0 {
        let pane = Rect {
            y: body.bottom() - details,
            height: details,
            ..area
        };
        detail::draw(model, lines.get(place), theme, pane, buffer);
    }
}

/// Keeps the selected line visible, and no room empty below the last line.
fn scroll(model: &mut Model, lines: usize, place: usize, room: usize) {
    model.page = room;
    let first = (place + 1).saturating_sub(room);
    model.offset = model
        .offset
        .clamp(first, place.max(first))
        .min(lines.saturating_sub(room));
}

fn summary(model: &Model, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let summary = model.summary();
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let mut text = format!(
        "{}, {}",
        count(summary.pods, "pod"),
        count(summary.containers, "container")
    );
    if summary.hung > 0 {
        text = format!("{text}, {} hung", summary.hung);
    }
    if let Some(cpu) = summary.cpu {
        text = format!("{text}, CPU {}", units::percent(cpu));
    }
    if let Some(memory) = summary.memory {
        text = format!("{text}, memory {}", units::bytes(memory));
    }
    let (pace, pace_style) = match model.paused {
        true => (" PAUSED ".to_string(), theme.selected()),
        false => (format!(" every {}", duration::show(model.interval)), theme.dim()),
    };
    let pace_width = (pace.chars().count() as u16).min(area.width);
    let title = "kata-runtime top  ";
    buffer.set_stringn(area.x, area.y, title, usize::from(area.width), theme.title());
    let indent = (title.len() as u16).min(area.width);
    let (text, style) = match &model.fault {
        Some(fault) => (fault.as_str(), theme.alarm()),
        None => (text.as_str(), theme.plain()),
    };
    let room = usize::from((area.width - indent).saturating_sub(pace_width));
    buffer.set_stringn(area.x + indent, area.y, theme.clip(text, room), room, style);
    buffer.set_stringn(
        area.right() - pace_width,
        area.y,
        pace,
        usize::from(pace_width),
        pace_style,
    );
}

fn footer(model: &Model, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let filter = theme.clip(&model.order.filter, 40);
    let (text, style) = match model.mode {
        Mode::Filter => (
            format!("/{filter}_   enter keeps it, esc clears it"),
            theme.plain(),
        ),
        Mode::Help => ("press any key to go back".to_string(), theme.dim()),
        Mode::Watch if !filter.is_empty() => (
            format!("filter: {filter}   esc clears it, / changes it"),
            theme.plain(),
        ),
        Mode::Watch => match model.hidden {
            Some(Hidden::Forbidden) => (
                "no network: it lacks the capability CAP_SYS_PTRACE   q quit  ? help".to_string(),
                theme.plain(),
            ),
            Some(Hidden::Pids) => (
                "no network: this is another pid namespace (--pid=host)   q quit  ? help".to_string(),
                theme.plain(),
            ),
            None => (KEYS.to_string(), theme.dim()),
        },
    };
    let room = usize::from(area.width);
    buffer.set_stringn(area.x, area.y, theme.clip(&text, room), room, style);
}

#[cfg(test)]
mod tests;
