//! Events as JSON, for pipelines, and as rows of a table, for people.

use std::io::IsTerminal;
use std::sync::Arc;

use serde::Serialize;
use shimstat::node::{Container, Ended, Source};
use shimstat::rates::Rates;
use shimstat::stats;
use shimstat::survey::{NotRunning, Sample};
use unicode_width::UnicodeWidthStr;

use crate::cli::{EventFormat, Events};
use crate::exit::Failure;
use crate::output;
use crate::show::columns::{Chosen, Order};
use crate::show::field::{Facts, Field, Value};
use crate::show::name::{Labels, label};
use crate::show::table::{Align, pad};
use crate::show::text::escape;
use crate::show::units::Unit;
use crate::show::{csv, fields, json, time};

/// How often the header is repeated on a terminal, in rows.
const ROWS_A_HEADER: usize = 40;

/// The first column is at least as wide as a short id, and at most half a wide terminal.
const NAME_WIDTH: std::ops::RangeInclusive<usize> = 12..=60;

/// What an event has of a task's network. An empty list would say that there is none.
const NETWORK: [&str; 5] = ["interfaces", "tcp", "tcp6", "udp", "udp6"];

/// Prints events as the user wants them.
pub struct EventPrinter {
    format: Format,
    sorted: Option<Sorted>,
}

enum Format {
    Json { pretty: bool },
    Table(EventTable),
    Csv { columns: Vec<&'static Field> },
}

/// Statistics that wait for the others, to be shown in order.
struct Sorted {
    order: Order,
    waiting: Vec<(Arc<Container>, Box<Sample>, Option<Rates>)>,
}

impl EventPrinter {
    pub fn new(arguments: &Events) -> Result<Self, Failure> {
        let known: Vec<&Field> = fields::IDENTITY.into_iter().chain(fields::STATISTICS).collect();
        let options = &arguments.table;
        if !arguments.format.has_rates()
            && (!options.columns.is_empty() || options.sort.is_some() || options.no_headers)
        {
            return Err(Failure::usage(
                "--columns, --sort and --no-headers are for tables: add -o table, wide or csv",
            ));
        }
        if options.sort.is_some() && !arguments.stats {
            return Err(Failure::usage("--sort needs --stats: a stream has no last row"));
        }
        let Chosen { columns, order } = Chosen::parse(&known, &options.columns, options.sort.as_deref())?;
        let columns_or = |usual: &[&'static Field]| columns.clone().unwrap_or_else(|| usual.to_vec());
        let alone = |fields: Vec<&'static Field>| fields.into_iter().map(|field| vec![field]).collect();
        let table = |columns| {
            Format::Table(EventTable {
                columns,
                labels: Labels::default(),
                name_width: *NAME_WIDTH.start(),
                rows: 0,
                has_header: !options.no_headers,
                repeat_header: std::io::stdout().is_terminal(),
            })
        };
        Ok(Self {
            format: match arguments.format {
                EventFormat::Pretty => Format::Json { pretty: true },
                EventFormat::Json => Format::Json { pretty: false },
                EventFormat::Table if columns.is_none() => {
                    table(fields::EVENTS.iter().map(|column| column.to_vec()).collect())
                }
                EventFormat::Table | EventFormat::Wide => table(alone(columns_or(&fields::STATISTICS))),
                EventFormat::Csv => {
                    let columns = columns_or(&known);
                    if !options.no_headers {
                        output::answer(csv::header(&columns).as_bytes())?;
                    }
                    Format::Csv { columns }
                }
            },
            sorted: order.map(|order| Sorted {
                order,
                waiting: Vec::new(),
            }),
        })
    }

    /// Prepares for rows about these containers.
    pub fn expect<'a>(&mut self, containers: impl IntoIterator<Item = &'a Arc<Container>>) {
        if let Format::Table(table) = &mut self.format {
            table.expect(containers);
        }
    }

    pub fn stats(
        &mut self,
        container: &Arc<Container>,
        sample: Box<Sample>,
        rates: Option<Rates>,
        network_is_hidden: bool,
    ) -> Result<(), Failure> {
        match &mut self.sorted {
            Some(sorted) => {
                sorted.waiting.push((container.clone(), sample, rates));
                Ok(())
            }
            None => self
                .format
                .stats(container, &sample, rates.as_ref(), network_is_hidden),
        }
    }

    /// Shows what has waited for the others.
    pub fn end(&mut self) -> Result<(), Failure> {
        let Some(Sorted { order, mut waiting }) = self.sorted.take() else {
            return Ok(());
        };
        waiting.sort_by(|a, b| {
            let [a, b] = [a, b].map(|(container, sample, rates)| facts(container, sample, rates.as_ref()));
            order.compare(&a, &b)
        });
        waiting.iter().try_for_each(|(container, sample, rates)| {
            self.format.stats(container, sample, rates.as_ref(), false)
        })
    }

    pub fn oom(&mut self, container: &Container) -> Result<(), Failure> {
        match &mut self.format {
            Format::Json { pretty } => answer(*pretty, &Event::new("oom", container, None)),
            Format::Table(table) => table.row(container, "a process was OOM-killed"),
            // A column counts them.
            Format::Csv { .. } => Ok(()),
        }
    }

    /// `ended` is what the container's manager has noted of its end.
    pub fn exit(
        &mut self,
        container: &Container,
        why: &NotRunning,
        ended: Option<Ended>,
    ) -> Result<(), Failure> {
        let exit = Exit::of(why, ended);
        match &mut self.format {
            Format::Json { pretty } => answer(*pretty, &Event::new("exit", container, Some(exit))),
            Format::Table(table) => table.row(
                container,
                &match exit.exit_status {
                    Some(status) => format!("exited with status {status}"),
                    None => "ended".to_string(),
                },
            ),
            // It is said on stderr.
            Format::Csv { .. } => Ok(()),
        }
    }
}

impl Format {
    fn stats(
        &mut self,
        container: &Container,
        sample: &Sample,
        rates: Option<&Rates>,
        network_is_hidden: bool,
    ) -> Result<(), Failure> {
        match self {
            Self::Json { pretty } => {
                let mut event = stats::event(container.id(), &sample.stats);
                if network_is_hidden
                    && let Some(data) = event.get_mut("data").and_then(|data| data.as_object_mut())
                {
                    NETWORK.iter().for_each(|key| drop(data.remove(*key)));
                }
                answer(*pretty, &event)
            }
            Self::Table(table) => {
                let cells = table.cells(&facts(container, sample, rates));
                table.row(container, &cells)
            }
            Self::Csv { columns } => {
                output::answer(csv::row(columns, &facts(container, sample, rates)).as_bytes())
            }
        }
    }
}

fn facts<'a>(container: &'a Container, sample: &'a Sample, rates: Option<&'a Rates>) -> Facts<'a> {
    Facts {
        sample: Some(sample),
        rates,
        ..Facts::of(container)
    }
}

/// Who is asked about a container.
pub fn source(source: &Source) -> String {
    match source {
        Source::Task(endpoint) => format!("shim {} ({:?})", endpoint.address, endpoint.version),
        Source::Sandbox(endpoint) => format!("shim {} (sandbox service)", endpoint.address),
        Source::Cgroup => "no shim: its cgroup and process are read".to_string(),
    }
}

fn answer(pretty: bool, event: &impl Serialize) -> Result<(), Failure> {
    output::answer(&if pretty {
        json::pretty(event)
    } else {
        json::line(event)
    })
}

/// An event other than statistics, with its keys in alphabetical order, too.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Exit>,
    id: &'a str,
    namespace: &'a str,
    r#type: &'static str,
}

impl<'a> Event<'a> {
    fn new(r#type: &'static str, container: &'a Container, data: Option<Exit>) -> Self {
        Self {
            data,
            id: container.id(),
            namespace: &container.bundle.namespace,
            r#type,
        }
    }
}

/// The `data` of an `exit` event, with the names of containerd's own exit event.
#[derive(Serialize)]
struct Exit {
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exited_at: Option<String>,
    reason: &'static str,
}

impl Exit {
    /// As the shim says, or else as the container's manager has noted.
    fn of(why: &NotRunning, ended: Option<Ended>) -> Self {
        let (state, reason) = match why {
            NotRunning::Stopped(state) => (Some(state), "stopped"),
            NotRunning::Unknown(_) => (None, "deleted"),
            NotRunning::Gone(_) => (None, "shim gone"),
        };
        let ended = ended.unwrap_or_default();
        let told = state.and_then(|state| state.exited_at);
        Self {
            exit_status: state.and_then(|state| state.exit_status).or(ended.exit_status),
            exited_at: told.or(ended.exited_at).and_then(time::rfc3339),
            reason,
        }
    }
}

/// Rows of the same width, each written at once.
struct EventTable {
    /// After the name. Several fields can share one.
    columns: Vec<Vec<&'static Field>>,
    labels: Labels,
    name_width: usize,
    rows: usize,
    has_header: bool,
    repeat_header: bool,
}

impl EventTable {
    fn expect<'a>(&mut self, containers: impl IntoIterator<Item = &'a Arc<Container>>) {
        let all: Vec<_> = containers
            .into_iter()
            .map(|container| (label(container), &container.bundle))
            .collect();
        self.labels = Labels::new(all.iter().cloned());
        let widths = all
            .iter()
            .map(|(label, bundle)| escape(&self.labels.distinct(label, bundle)).width());
        let widest = widths.max().unwrap_or(0).min(*NAME_WIDTH.end());
        self.name_width = self.name_width.max(widest);
    }

    fn row(&mut self, container: &Container, cells: &str) -> Result<(), Failure> {
        let mut text = String::new();
        let is_due = self.rows == 0 || (self.repeat_header && self.rows.is_multiple_of(ROWS_A_HEADER));
        if self.has_header && is_due {
            text = self.line("CONTAINER", &self.joined(heading));
        }
        self.rows += 1;
        let label = label(container);
        text += &self.line(&self.labels.distinct(&label, &container.bundle), cells);
        output::answer(text.as_bytes())
    }

    fn line(&self, name: &str, cells: &str) -> String {
        format!("{}  {cells}\n", pad(&escape(name), self.name_width, Align::Left))
    }

    fn cells(&self, facts: &Facts) -> String {
        self.joined(|column| {
            let shown: Vec<_> = column.iter().map(|field| field.show(facts)).collect();
            escape(&shown.join(WITH)).into_owned()
        })
    }

    fn joined(&self, cell: impl Fn(&[&Field]) -> String) -> String {
        let cells = self.columns.iter().map(|column| {
            let align = match column.first().map(|field| field.value) {
                Some(Value::Text(_)) => Align::Left,
                _ => Align::Right,
            };
            pad(&cell(column), width(column), align)
        });
        cells.collect::<Vec<_>>().join("  ")
    }
}

/// Between the fields that share a column.
const WITH: &str = " / ";

fn heading(column: &[&Field]) -> String {
    let headings: Vec<_> = column.iter().map(|field| field.heading).collect();
    headings.join(WITH)
}

fn width(column: &[&Field]) -> usize {
    let widths = column.iter().map(|field| match field.value {
        Value::Number(unit, _) => unit.width(),
        Value::Text(_) => *NAME_WIDTH.start(),
        Value::Share(..) => Unit::Share.width(),
    });
    let shown = widths.sum::<usize>() + WITH.len() * column.len().saturating_sub(1);
    shown.max(heading(column).len())
}
