//! How a list looks.

use std::time::SystemTime;

use shimstat::node::Pod;

use super::row::ListRow;
use crate::cli::{List, ListFormat};
use crate::show::columns::{Chosen, UnknownColumn};
use crate::show::field::{Facts, Field, Value};
use crate::show::name::Labels;
use crate::show::table::{Align, Table};
use crate::show::text::escape;
use crate::show::{csv, fields, json, name};

/// Ids, one per line.
pub fn ids(ids: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for id in ids {
        // A directory can have any name, and each line must be one id.
        text += &escape(&id);
        text.push('\n');
    }
    text
}

/// Shows a list as the user wants it, and what changes in it later.
pub struct ListPrinter<'a> {
    arguments: &'a List,
    chosen: Chosen,
    /// Those of the rows so far.
    columns: Vec<&'static Field>,
    /// As wide as the rows so far.
    table: Table,
}

impl<'a> ListPrinter<'a> {
    pub fn new(arguments: &'a List) -> Result<Self, UnknownColumn> {
        let ids: &[&Field] = match arguments.no_trunc {
            true => &[&fields::FULL_ID],
            false => &[],
        };
        let known = [ids, &fields::LIST, &fields::WIDE, &fields::GUEST].concat();
        let options = &arguments.table;
        Ok(Self {
            chosen: Chosen::parse(&known, &options.columns, options.sort.as_deref())?,
            arguments,
            columns: Vec::new(),
            table: Table::new([]),
        })
    }

    /// Whether guests are to be asked about themselves, which costs each of them three calls.
    pub fn tells_of_guests(&self) -> bool {
        match &self.chosen.columns {
            Some(columns) => columns
                .iter()
                .any(|column| fields::GUEST.iter().any(|field| field.heading == column.heading)),
            None => self.arguments.format != ListFormat::Table,
        }
    }

    /// The whole list.
    pub fn all(&mut self, pods: &[(Pod, Vec<ListRow>)], now: SystemTime) -> Vec<u8> {
        self.columns = self.columns_for(pods);
        let rows = self.sorted(pods.iter().flat_map(|(_, rows)| rows), now);
        match self.arguments.format {
            ListFormat::Table | ListFormat::Wide => self.table(pods, &rows, now),
            ListFormat::Csv => {
                let header = match self.arguments.table.no_headers {
                    true => String::new(),
                    false => csv::header(&self.columns),
                };
                (header + &csv_rows(&self.columns, &rows, now)).into_bytes()
            }
            ListFormat::Json if !self.arguments.watch => {
                let objects: Vec<_> = rows.iter().map(|row| row.object(now)).collect();
                json::line(&objects)
            }
            ListFormat::Json | ListFormat::Jsonl => json_lines(&rows, now),
        }
    }

    /// Rows that are new, or have changed.
    pub fn changed(&mut self, rows: &[&ListRow], now: SystemTime) -> Vec<u8> {
        match self.arguments.format {
            ListFormat::Table | ListFormat::Wide => {
                for row in rows {
                    let facts = row.facts(now);
                    self.table
                        .row(self.columns.iter().map(|field| field.show(&facts)));
                }
                self.table.take_lines().into_bytes()
            }
            ListFormat::Csv => csv_rows(&self.columns, rows, now).into_bytes(),
            ListFormat::Json | ListFormat::Jsonl => json_lines(rows, now),
        }
    }

    fn sorted<'r>(&self, rows: impl Iterator<Item = &'r ListRow>, now: SystemTime) -> Vec<&'r ListRow> {
        let mut rows: Vec<_> = rows.collect();
        if let Some(order) = &self.chosen.order {
            rows.sort_by(|a, b| order.compare(&a.facts(now), &b.facts(now)));
        }
        rows
    }

    fn table(&mut self, pods: &[(Pod, Vec<ListRow>)], sorted: &[&ListRow], now: SystemTime) -> Vec<u8> {
        let headings = self.columns.iter().map(|field| match field.value {
            Value::Text(_) => (field.heading, Align::Left),
            Value::Number(..) | Value::Share(..) => (field.heading, Align::Right),
        });
        let mut table = Table::new(headings);
        if self.arguments.table.no_headers {
            table = table.without_headings();
        }
        let mut add = |facts: &Facts, indent: &str| {
            let cells = self
                .columns
                .iter()
                .enumerate()
                .map(|(number, field)| match number {
                    0 => format!("{indent}{}", field.show(facts)),
                    _ => field.show(facts),
                });
            table.row(cells);
        };
        if self.chosen.order.is_some() {
            // Sorted rows are no longer below their sandbox.
            for row in sorted {
                add(&row.facts(now), "");
            }
        } else {
            for (pod, rows) in pods {
                let heading = heading(pod);
                let in_pod = heading.is_some() || pod.sandbox.is_some();
                let rows = rows.iter().map(|row| row.facts(now));
                for facts in heading.into_iter().chain(rows) {
                    add(&facts, if in_pod && facts.id != pod.id { "  " } else { "" });
                }
            }
        }
        self.table = table;
        self.table.take_lines().into_bytes()
    }

    fn columns_for(&self, pods: &[(Pod, Vec<ListRow>)]) -> Vec<&'static Field> {
        if let Some(columns) = &self.chosen.columns {
            return columns.clone();
        }
        let format = self.arguments.format;
        let mut columns = fields::LIST.to_vec();
        // Programs want whole ids.
        if (self.arguments.no_trunc || format == ListFormat::Csv)
            && let Some(id) = columns.first_mut()
        {
            *id = &fields::FULL_ID;
        }
        let has_guest = |row: &ListRow| row.guest.is_some();
        if matches!(format, ListFormat::Wide | ListFormat::Csv) {
            columns.extend(fields::WIDE);
            // Scripts count on their columns.
            if format == ListFormat::Csv || pods.iter().flat_map(|(_, rows)| rows).any(has_guest) {
                columns.extend(fields::GUEST);
            }
        } else if some_ids_look_alike(pods) {
            columns.push(&fields::NAMESPACE);
        }
        columns
    }
}

fn csv_rows(columns: &[&'static Field], rows: &[&ListRow], now: SystemTime) -> String {
    rows.iter()
        .map(|row| csv::row(columns, &row.facts(now)))
        .collect()
}

fn json_lines(rows: &[&ListRow], now: SystemTime) -> Vec<u8> {
    rows.iter().flat_map(|row| json::line(&row.object(now))).collect()
}

/// Whether the same id exists in several of containerd's namespaces.
fn some_ids_look_alike(pods: &[(Pod, Vec<ListRow>)]) -> bool {
    let bundles = pods
        .iter()
        .flat_map(|(pod, _)| pod.all())
        .map(|container| &container.bundle);
    Labels::new(bundles.map(|bundle| (name::short_id(&bundle.id).to_string(), bundle))).any_is_shared()
}

/// The row over the containers of a sandbox that is not listed itself.
fn heading(pod: &Pod) -> Option<Facts<'_>> {
    let first = pod.first().filter(|_| pod.sandbox.is_none() && !pod.is_plain())?;
    Some(Facts {
        // If its bundle exists, a filter left it out.
        status: (!pod.key.exists()).then_some("not found"),
        ..Facts::of_sandbox(&pod.id, first)
    })
}
