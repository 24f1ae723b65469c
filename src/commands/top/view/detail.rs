//! The pane about the selected line: its numbers in full, its past CPU usage, and the processes of its sandbox.

use std::cmp::Ordering;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Sparkline, Widget};
use shimstat::node::Part;
use shimstat::stats::{Memory, Stats};
use unicode_width::UnicodeWidthStr;

use super::super::host::{HostSide, VmSide};
use super::super::model::Model;
use super::super::row::Health;
use super::super::tree::{Kind, Line};
use super::theme::Theme;
use crate::guest_side::{Filesystem, GuestSide};
use crate::show::field::{Field, Value};
use crate::show::name::short_id;
use crate::show::{fields, units};

/// The pane's rows: its title, and one for each fact that there can be.
const HEIGHT: u16 = 9;

/// The rows for what guests tell.
const GUEST_HEIGHT: u16 = 2;

/// The width of a row's label, and a blank.
const LABEL: u16 = 10;

/// The minimum width of the graph, and the minimum and maximum of the text beside it.
const GRAPH: u16 = 20;
const TEXT: u16 = 58;
const MAX_TEXT: u16 = 80;

pub fn height(model: &Model) -> u16 {
    match model.guests_tell {
        true => HEIGHT + GUEST_HEIGHT,
        false => HEIGHT,
    }
}

pub fn draw(model: &Model, line: Option<&Line>, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    rule(model, line, theme, Rect { height: 1, ..area }, buffer);
    let Some(line) = line else { return };
    let text = match area.width {
        // The text matters more.
        width if width < TEXT + GRAPH => width,
        // No text is cut for an empty graph.
        width if !has_past(model, line, width - TEXT) => width,
        width => (width / 2).clamp(TEXT, MAX_TEXT),
    };
    for (number, (label, value)) in (1..area.height).zip(facts(model, line)) {
        let y = area.y + number;
        buffer.set_stringn(area.x, y, label, usize::from(text), theme.dim());
        let room = usize::from(text.saturating_sub(LABEL + 1));
        buffer.set_stringn(area.x + LABEL, y, theme.clip(&value, room), room, theme.plain());
    }
    let graph_area = Rect {
        x: area.x + text,
        y: area.y + 1,
        width: area.width - text,
        height: area.height.saturating_sub(1),
    };
    graph(model, line, theme, graph_area, buffer);
}

fn past(model: &Model, line: &Line, width: u16) -> Vec<Option<f64>> {
    let past = model.tree.cpu(line);
    past.map_or_else(Vec::new, |past| past.last(usize::from(width)).collect())
}

fn has_past(model: &Model, line: &Line, width: u16) -> bool {
    past(model, line, width).iter().any(Option::is_some)
}

/// The pane's title: what the line is about.
fn rule(model: &Model, line: Option<&Line>, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    buffer.set_string(area.x, area.y, theme.rule().repeat(width), theme.dim());
    let Some(line) = line else { return };
    let mut x = area.x + 2;
    for (text, style) in [
        (title(model, line), theme.title()),
        (identity(model, line), theme.dim()),
    ] {
        let room = area.right().saturating_sub(x + 4);
        let text = format!(" {} ", theme.clip(&text, usize::from(room)));
        if room > 0 {
            (x, _) = buffer.set_stringn(x, area.y, text, usize::from(room + 2), style);
        }
        x += 1;
    }
}

fn title(model: &Model, line: &Line) -> String {
    let name = model.tree.name(line);
    match (line.kind, model.tree.group(line)) {
        (Kind::Member { .. }, Some(group)) => format!("{}/{name}", group.title),
        _ => name.to_string(),
    }
}

fn identity(model: &Model, line: &Line) -> String {
    let group = model.tree.group(line);
    let container = model
        .tree
        .row(line)
        .or_else(|| group?.main())
        .map(|row| &row.container);
    let id = match (line.kind, group) {
        (Kind::Pod { .. }, Some(group)) => Some(group.id.as_str()),
        _ => container.map(|container| container.id()),
    };
    let id = id.map(short_id).filter(|id| *id != model.tree.name(line));
    join([
        model.host.as_ref().and_then(|host| host.runtime.clone()),
        id.map(str::to_string),
        container.map(|container| format!("in {}", container.bundle.namespace)),
    ])
}

/// The rows of the pane, with their labels. What is not known is left out. For a pod they are about everything in it.
fn facts(model: &Model, line: &Line) -> Vec<(&'static str, String)> {
    let row = model.tree.row(line);
    let mut facts = vec![("state", state(model, line))];
    if row.is_none_or(|row| matches!(row.health, Health::Answers(_) | Health::Unmeasured)) {
        let sample = row.and_then(|row| row.sample.as_ref());
        // The sandbox's own container is only part of the pod.
        let stats = sample
            .map(|sample| &sample.stats)
            .filter(|_| !matches!(line.kind, Kind::Pod { .. }));
        facts.push(("memory", memory(model, line, stats)));
        facts.push(("cpu", cpu(model, line, stats)));
        facts.push(("io", io(model, line)));
    }
    if let Some(guest) = &model.guest {
        facts.extend(guest_side(guest));
    }
    if let Some(host) = &model.host {
        facts.extend(host_side(host));
    }
    facts.retain(|(_, text)| !text.is_empty());
    facts
}

/// A number of the line with its unit.
fn number(model: &Model, line: &Line, field: &Field) -> Option<String> {
    let number = model.tree.number(line, field)?;
    match field.value {
        Value::Number(unit, _) => Some(unit.show(number)),
        Value::Text(_) | Value::Share(..) => None,
    }
}

fn memory(model: &Model, line: &Line, stats: Option<&Stats>) -> String {
    let memory = stats.map(|stats| &stats.memory);
    let with_cache = memory.and_then(|memory| memory.usage.usage);
    let swapped = memory.and_then(Memory::swapped).filter(|swapped| *swapped > 0);
    join([
        number(model, line, &fields::MEMORY).map(|memory| format!("{memory} working set")),
        with_cache.map(|bytes| format!("{} with cache", units::bytes(bytes))),
        number(model, line, &fields::LIMIT).map(|limit| format!("{limit} limit")),
        swapped.map(|bytes| format!("{} swapped out", units::bytes(bytes))),
    ])
}

fn cpu(model: &Model, line: &Line, stats: Option<&Stats>) -> String {
    let total = stats.and_then(|stats| stats.cpu.usage.total);
    let limit = stats.and_then(|stats| stats.pids.limit);
    let pids = number(model, line, &fields::PIDS).map(|pids| match limit {
        Some(limit) => format!("{pids} of {limit} pids"),
        None if pids == "1" => "1 pid".to_string(),
        None => format!("{pids} pids"),
    });
    let kills = number(model, line, &fields::OOM_KILLS).filter(|kills| kills != "0");
    join([
        number(model, line, &fields::CPU),
        total.map(|nanos| format!("{} in all", units::cpu_time(nanos as f64 / 1e9))),
        number(model, line, &fields::THROTTLED).map(|share| format!("throttled {share}")),
        pids,
        kills.map(|kills| format!("{kills} OOM kills")),
    ])
}

fn io(model: &Model, line: &Line) -> String {
    let rate = |what: &str, field| number(model, line, field).map(|rate| format!("{what} {rate}"));
    join([
        rate("rx", &fields::RX),
        rate("tx", &fields::TX),
        rate("read", &fields::READ),
        rate("write", &fields::WRITE),
    ])
}

fn state(model: &Model, line: &Line) -> String {
    let Some(row) = model.tree.row(line) else {
        return "its sandbox has no bundle".to_string();
    };
    let health = match &row.health {
        Health::Waiting => "no answer yet".to_string(),
        Health::Unmeasured => "running, without statistics of its own".to_string(),
        Health::Answers(word) => word.unwrap_or("running").to_string(),
        Health::Hung(why) | Health::Stopped(why) | Health::Failed(why) => why.clone(),
    };
    let age = model.host.as_ref().and_then(|host| host.age);
    let pid = row.sample.as_ref().map(|sample| sample.state.pid);
    join([
        Some(health),
        pid.filter(|pid| *pid != 0).map(|pid| format!("pid {pid}")),
        age.map(|age| format!("age {}", units::age(age))),
    ])
}

/// What the sandbox's guest tells.
fn guest_side(guest: &GuestSide) -> [(&'static str, String); 2] {
    let memory = guest.memory.map(|memory| format!("{} in use", memory.show()));
    let interfaces: Vec<_> = guest.interfaces().collect();
    let disks: Vec<_> = guest.filesystems.iter().map(Filesystem::show).collect();
    let about = join([
        memory,
        Some(interfaces.join(", ")).filter(|text| !text.is_empty()),
        Some(format!("agent {}", guest.version)),
    ]);
    [("guest", about), ("in it", disks.join(", "))]
}

/// What the sandbox's processes use, from `/proc`.
fn host_side(host: &HostSide) -> Vec<(&'static str, String)> {
    let is_shown = |part| part != Part::Vhost || host.vm.is_none();
    let parts = host.parts.iter().filter(|(part, _)| is_shown(part.part));
    let mut lines: Vec<_> = parts
        .map(|(processes, cpu)| {
            let label = match processes.part {
                Part::Vmm => "VMM",
                Part::Vhost => "vhost",
                Part::Virtiofsd => "virtiofsd",
                Part::Shim => "shim",
                Part::ShimAndVmm => "shim+VMM",
            };
            let is_vmm = matches!(processes.part, Part::Vmm | Part::ShimAndVmm);
            let vm = host.vm.as_ref().filter(|_| is_vmm);
            let resident = processes.memory();
            let memory = match vm.and_then(|vm| guest_memory(vm, processes.part)) {
                Some(text) => Some(text),
                None => resident.map(|bytes| format!("{} resident", units::bytes(bytes))),
            };
            let pids: Vec<_> = processes
                .processes
                .iter()
                .map(|process| process.pid.to_string())
                .collect();
            let vhost = || host.parts.iter().find(|(part, _)| part.part == Part::Vhost)?.1;
            let text = join([
                cpu.map(units::percent),
                memory,
                vm.and_then(|vm| vm.waiting)
                    .map(|percent| format!("steal {}", units::percent(percent))),
                vm.and_then(|_| vhost())
                    .map(|percent| format!("vhost {}", units::percent(percent))),
                Some(format!("pid {}", pids.join(" "))),
            ]);
            (label, text)
        })
        .collect();
    if let Some(vm) = &host.vm {
        let (cpu, memory) = vm.overhead;
        let dropped = vm.usage.links.as_ref().map(|links| {
            links
                .dropped_to_guest()
                .saturating_add(links.dropped_from_guest())
        });
        let dropped = dropped
            .filter(|packets| *packets > 0)
            .map(|packets| format!("{packets} packets dropped"));
        let hidden = (!vm.shows_memory).then(|| "the guest's memory is hidden from this host".to_string());
        let text = join([cpu.map(units::percent), memory.map(units::bytes), hidden, dropped]);
        lines.push(("overhead", text));
    }
    if host.is_elsewhere {
        lines.push(("VMM", "the virtual machine is not on this host".to_string()));
    }
    lines
}

/// The VMM's own memory and its guest's; `None` where the guest's is hidden from the host.
fn guest_memory(vm: &VmSide, part: Part) -> Option<String> {
    let memory = &vm.usage.memory;
    let own = memory
        .own
        .iter()
        .find(|(other, _)| *other == part)?
        .1
        .map(units::bytes)?;
    match memory.guest {
        Some(guest) => Some(format!("{own}, guest {}", units::bytes(guest.total()))),
        None => vm.shows_memory.then(|| format!("{own} with guest")),
    }
}

fn join<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Past CPU usage, the newest at the right.
fn graph(model: &Model, line: &Line, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    if area.width < 4 || area.height < 2 {
        return;
    }
    let past = past(model, line, area.width);
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
        // NaN included.
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
