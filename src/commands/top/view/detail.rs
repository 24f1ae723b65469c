//! The pane about the selected container: its numbers in full, its past, and the processes around its sandbox.

use std::cmp::Ordering;

use crate::show::units;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Sparkline, Widget};
use shimstat::node::Part;
use shimstat::stats::{Memory, Stats};
use unicode_width::UnicodeWidthStr;

use super::super::host::HostSide;
use super::super::model::Model;
use super::super::row::{Figures, Health, Row};
use super::super::tree::Line;
use super::theme::Theme;
use crate::show::text::escape;

/// The rows that the pane takes, its title too.
pub const HEIGHT: u16 = 8;

/// The least width of the graph, and the widths between which the text beside it is.
const GRAPH: u16 = 20;
const TEXT: u16 = 58;
const MAX_TEXT: u16 = 80;

pub fn draw(model: &Model, line: Option<&Line>, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let row = line.and_then(|line| model.rows.get(line.row));
    let title = row.map(|row| title(model, row)).unwrap_or_default();
    rule(&title, theme, Rect { height: 1, ..area }, buffer);
    let (Some(row), Some(line)) = (row, line) else {
        return;
    };
    let text = match area.width {
        width if width >= TEXT + GRAPH => (width / 2).clamp(TEXT, MAX_TEXT),
        // The text matters more.
        width => width,
    };
    for (number, (label, value)) in (1..area.height).zip(facts(model, row, &line.figures)) {
        let y = area.y + number;
        buffer.set_stringn(area.x, y, label, usize::from(text), theme.dim());
        let room = usize::from(text.saturating_sub(10));
        buffer.set_stringn(area.x + 9, y, theme.clip(&value, room), room, theme.plain());
    }
    let graph_area = Rect {
        x: area.x + text,
        y: area.y + 1,
        width: area.width - text,
        height: area.height.saturating_sub(1),
    };
    graph(model, row, theme, graph_area, buffer);
}

fn title(model: &Model, row: &Row) -> String {
    match model.sandbox_of(row) {
        Some(sandbox) if !std::ptr::eq(sandbox, row) => {
            format!("{}/{}", sandbox.title(), row.container_name())
        }
        _ => row.title(),
    }
}

fn rule(title: &str, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    buffer.set_string(
        area.x,
        area.y,
        theme.rule().repeat(usize::from(area.width)),
        theme.dim(),
    );
    if !title.is_empty() {
        let title = format!(
            " {} ",
            theme.clip(title, usize::from(area.width.saturating_sub(6)))
        );
        buffer.set_stringn(
            area.x + 2,
            area.y,
            title,
            usize::from(area.width.saturating_sub(4)),
            theme.title(),
        );
    }
}

/// The lines of the pane: what each is about, and what there is to say. What is not known is left out. Those of a
/// pod are about all that is in it.
fn facts(model: &Model, row: &Row, figures: &Figures) -> Vec<(&'static str, String)> {
    let mut facts = vec![("id", identity(model, row)), ("state", state(model, row))];
    if let (Some(sample), Health::Answers(_)) = (&row.sample, &row.health) {
        // The sandbox's own container is not what its pod uses.
        let stats = Some(&sample.stats).filter(|_| !row.container.is_sandbox());
        facts.push(("memory", memory(figures, stats)));
        facts.push(("cpu", cpu(figures, stats)));
        facts.push(("io", io(figures)));
    }
    if let Some(host) = &model.host {
        facts.extend(host_side(host));
    }
    facts.retain(|(_, text)| !text.is_empty());
    facts
}

fn memory(figures: &Figures, stats: Option<&Stats>) -> String {
    let bytes = |bytes: Option<u64>, what: &str| Some(format!("{} {what}", units::bytes(bytes?)));
    let memory = stats.map(|stats| &stats.memory);
    join([
        bytes(figures.memory, "working set"),
        bytes(memory.and_then(|memory| memory.usage.usage), "with cache"),
        bytes(figures.limit, "limit"),
        bytes(
            memory.and_then(Memory::swapped).filter(|swapped| *swapped > 0),
            "swapped out",
        ),
    ])
}

fn cpu(figures: &Figures, stats: Option<&Stats>) -> String {
    let total = stats.and_then(|stats| stats.cpu.usage.total);
    let pids = figures
        .pids
        .map(|pids| match stats.and_then(|stats| stats.pids.limit) {
            Some(limit) => format!("{pids} of {limit} pids"),
            None if pids == 1 => "1 pid".to_string(),
            None => format!("{pids} pids"),
        });
    join([
        figures.cpu.map(units::percent),
        total.map(|nanos| format!("{:.1}s in all", nanos as f64 / 1e9)),
        figures
            .throttled
            .map(|share| format!("throttled {}", units::percent(share * 100.0))),
        pids,
        figures
            .oom_kills
            .filter(|kills| *kills > 0)
            .map(|kills| format!("{kills} OOM kills")),
    ])
}

fn io(figures: &Figures) -> String {
    let rate = |what: &str, rate: Option<f64>| Some(format!("{what} {}", units::rate(rate?)));
    join([
        rate("rx", figures.rx),
        rate("tx", figures.tx),
        rate("read", figures.read),
        rate("write", figures.write),
    ])
}

fn identity(model: &Model, row: &Row) -> String {
    let bundle = &row.container.bundle;
    let runtime = model.host.as_ref().and_then(|host| host.runtime.as_ref());
    let runtime = runtime.map(|runtime| escape(runtime).into_owned());
    join([
        runtime,
        Some(row.short_id()),
        Some(format!("in {}", escape(&bundle.namespace))),
    ])
}

fn state(model: &Model, row: &Row) -> String {
    let health = match &row.health {
        Health::Waiting => "not heard of yet".to_string(),
        Health::Answers(word) => word.unwrap_or("running").to_string(),
        Health::Hung(why) | Health::Stopped(why) | Health::Failed(why) => why.clone(),
    };
    let age = model.host.as_ref().and_then(|host| host.age);
    let pid = row
        .sample
        .as_ref()
        .map(|sample| sample.state.pid)
        .filter(|pid| *pid != 0);
    join([
        Some(health),
        pid.map(|pid| format!("pid {pid}")),
        age.map(|age| format!("age {}", units::age(age))),
    ])
}

/// What the sandbox's processes use, as `/proc` has it.
fn host_side(host: &HostSide) -> impl Iterator<Item = (&'static str, String)> {
    host.parts.iter().map(|(processes, cpu)| {
        let label = match processes.part {
            Part::Vmm => "VMM",
            Part::Vhost => "vhost",
            Part::Virtiofsd => "virtiofsd",
            Part::Shim => "shim",
            Part::ShimAndVmm => "shim+VMM",
        };
        let pids: Vec<_> = processes
            .processes
            .iter()
            .map(|process| process.pid.to_string())
            .collect();
        let text = join([
            cpu.map(units::percent),
            processes
                .memory()
                .map(|bytes| format!("{} resident", units::bytes(bytes))),
            Some(format!("pid {}", pids.join(" "))),
        ]);
        (label, text)
    })
}

fn join<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The CPU of the past, the newest at the right.
fn graph(model: &Model, row: &Row, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    if area.width < 4 || area.height < 2 {
        return;
    }
    let past: Vec<Option<f64>> = row.cpu.last(usize::from(area.width)).collect();
    let top = scale(past.iter().flatten().copied().fold(0.0, f64::max));
    let span = model.interval.saturating_mul(u32::from(area.width));
    let label = format!("CPU, 0-{top:.0}%, last {}", units::age(span));
    let room = usize::from(area.width);
    let label = theme.clip(&label, room);
    let indent = room.saturating_sub(label.width());
    buffer.set_stringn(
        area.x + u16::try_from(indent).unwrap_or(0),
        area.y,
        label,
        room,
        theme.dim(),
    );
    let missing = usize::from(area.width).saturating_sub(past.len());
    // Thousandths of the height.
    let values = std::iter::repeat_n(None, missing)
        .chain(past)
        .map(|value| value.map(|value| (value / top * 1000.0) as u64));
    Sparkline::default()
        .data(values)
        .max(1000)
        .bar_set(theme.levels())
        .absent_value_symbol(" ")
        .style(theme.good())
        .render(
            Rect {
                y: area.y + 1,
                height: area.height - 1,
                ..area
            },
            buffer,
        );
}

/// The height of a graph, in per cent, that has room for a value.
fn scale(most: f64) -> f64 {
    let mut top = 10.0;
    for step in [2.5, 2.0, 2.0].into_iter().cycle() {
        // Also where it is no number.
        if top > 1e7 || most.partial_cmp(&top) != Some(Ordering::Greater) {
            break;
        }
        top *= step;
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graphs_height_is_a_round_number() {
        for (most, top) in [
            (0.0, 10.0),
            (10.0, 10.0),
            (10.1, 25.0),
            (26.0, 50.0),
            (99.0, 100.0),
            (101.0, 250.0),
            (300.0, 500.0),
            (1000.0, 1000.0),
        ] {
            assert_eq!(scale(most), top, "{most}");
        }
        assert!(scale(f64::INFINITY).is_finite() && scale(f64::NAN) == 10.0);
    }
}
