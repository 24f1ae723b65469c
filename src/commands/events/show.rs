//! Events as JSON, for pipelines, and as rows of a table, for people.

use std::fmt::Write;
use std::io::IsTerminal;

use crate::show::units;
use serde_json::{Map, Value, json};
use shimstat::rates::Rates;
use shimstat::stats;
use shimstat::survey::{NotRunning, Sample};

use super::Subject;
use crate::cli::EventFormat;
use crate::exit::Failure;
use crate::output;
use crate::show::text::escape;
use crate::show::{json, time};

/// The header is shown again after so many rows, where somebody watches.
const ROWS_A_HEADER: usize = 40;

/// The bounds of the first column, in characters: as narrow as a short id, and half a wide terminal.
const NAME_WIDTH: std::ops::RangeInclusive<usize> = 12..=60;

pub enum Show {
    Json(fn(&Value) -> Vec<u8>),
    Table(Table),
}

impl Show {
    pub fn new(format: EventFormat) -> Self {
        match format {
            EventFormat::Pretty => Self::Json(json::pretty),
            EventFormat::Json => Self::Json(json::line),
            EventFormat::Table => Self::Table(Table {
                name_width: *NAME_WIDTH.start(),
                rows: 0,
                repeat_header: std::io::stdout().is_terminal(),
            }),
        }
    }

    /// Prepares for containers that are called so.
    pub fn expect(&mut self, labels: impl Iterator<Item = String>) {
        if let Self::Table(table) = self {
            let widest = labels
                .map(|label| escape(&label).chars().count())
                .max()
                .unwrap_or(0);
            table.name_width = table.name_width.max(widest.min(*NAME_WIDTH.end()));
        }
    }

    pub fn stats(
        &mut self,
        subject: &Subject,
        sample: &Sample,
        rates: Option<&Rates>,
    ) -> Result<(), Failure> {
        match self {
            Self::Json(text) => output::answer(&text(&stats::event(subject.container.id(), &sample.stats))),
            Self::Table(table) => table.row(subject, &cells(sample, rates)),
        }
    }

    pub fn oom(&mut self, subject: &Subject) -> Result<(), Failure> {
        match self {
            Self::Json(text) => output::answer(&text(&json!({"type": "oom", "id": subject.container.id()}))),
            Self::Table(table) => table.row(subject, "killed for want of memory (OOM)"),
        }
    }

    pub fn exit(&mut self, subject: &Subject, why: &NotRunning) -> Result<(), Failure> {
        match self {
            Self::Json(text) => output::answer(&text(
                &json!({"type": "exit", "id": subject.container.id(), "data": exit(why)}),
            )),
            Self::Table(table) => table.row(
                subject,
                &match why {
                    NotRunning::Stopped(state) => format!("exited with status {}", state.exit_status),
                    NotRunning::Gone(_) | NotRunning::Unknown(_) => "ended".to_string(),
                },
            ),
        }
    }
}

/// The `data` of an `exit` event, under the names of containerd's own exit event.
fn exit(why: &NotRunning) -> Value {
    let mut data = Map::new();
    let reason = match why {
        NotRunning::Stopped(state) => {
            data.insert("exit_status".into(), state.exit_status.into());
            if let Some(at) = state.exited_at.and_then(|at| u64::try_from(at).ok()) {
                data.insert("exited_at".into(), time::rfc3339_seconds(at).into());
            }
            "stopped"
        }
        NotRunning::Unknown(_) => "deleted",
        NotRunning::Gone(_) => "shim gone",
    };
    data.insert("reason".into(), reason.into());
    data.into()
}

/// Rows of the same width, each written at once.
pub struct Table {
    name_width: usize,
    rows: usize,
    repeat_header: bool,
}

/// The columns after the first, with their widths.
const COLUMNS: [(&str, usize); 7] = [
    ("CPU", 6),
    ("MEMORY / LIMIT", 2 * units::MAX_BYTES + 3),
    ("PIDS", 5),
    ("NET IN", units::MAX_RATE),
    ("NET OUT", units::MAX_RATE),
    ("DISK READ", units::MAX_RATE),
    ("DISK WRITE", units::MAX_RATE + 1),
];

impl Table {
    fn row(&mut self, subject: &Subject, cells: &str) -> Result<(), Failure> {
        let mut text = String::new();
        if self.rows == 0 || (self.repeat_header && self.rows.is_multiple_of(ROWS_A_HEADER)) {
            text = self.line("CONTAINER", &aligned(COLUMNS.map(|(title, _)| title.to_string())));
        }
        self.rows += 1;
        text += &self.line(&escape(&subject.label()), cells);
        output::answer(text.as_bytes())
    }

    fn line(&self, name: &str, cells: &str) -> String {
        format!("{name:0$}  {cells}\n", self.name_width)
    }
}

fn cells(sample: &Sample, rates: Option<&Rates>) -> String {
    let rates = rates.copied().unwrap_or_default();
    let (memory, pids) = (&sample.stats.memory, &sample.stats.pids);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
    let rate = |number: Option<f64>| or_dash(number.map(units::rate));
    aligned([
        or_dash(rates.cpu_percent.map(units::percent)),
        format!(
            "{} / {}",
            or_dash(memory.working_set().map(units::bytes)),
            or_dash(memory.limit().map(units::bytes))
        ),
        or_dash(pids.current.map(|count| count.to_string())),
        rate(rates.rx_bytes),
        rate(rates.tx_bytes),
        rate(rates.read_bytes),
        rate(rates.write_bytes),
    ])
}

fn aligned(cells: [String; COLUMNS.len()]) -> String {
    let mut line = String::new();
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        let gap = if line.is_empty() { "" } else { "  " };
        // Writing to a text does not fail.
        let _ = write!(line, "{gap}{cell:>width$}");
    }
    line
}
