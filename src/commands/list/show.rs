//! The list as a table, as JSON, as ids.

use std::time::SystemTime;

use shimstat::node::Pod;

use super::row::Row;
use crate::show::field::{Facts, Field, Value};
use crate::show::json;
use crate::show::name::Labels;
use crate::show::table::{Align, Table};
use crate::show::text::escape;
use crate::show::{fields, name};

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

/// Pods with their rows, as a table.
pub fn table(pods: &[(Pod, Vec<Row>)], now: SystemTime, whole_ids: bool, wide: bool) -> Vec<u8> {
    let columns = columns(pods, whole_ids, wide);
    let headings = columns.iter().map(|field| match field.value {
        Value::Text(_) => (field.heading, Align::Left),
        Value::Number(..) | Value::Share(..) => (field.heading, Align::Right),
    });
    let mut table = Table::new(headings);
    for (pod, rows) in pods {
        let heading = heading(pod);
        let in_pod = heading.is_some() || pod.sandbox.is_some();
        let rows = rows.iter().map(|row| row.facts(now));
        for facts in heading.into_iter().chain(rows) {
            let indent = if in_pod && facts.id != pod.id { "  " } else { "" };
            let cells = columns.iter().enumerate().map(|(number, field)| match number {
                0 => format!("{indent}{}", field.show(&facts)),
                _ => field.show(&facts),
            });
            table.row(cells);
        }
    }
    format!("{table}\n").into_bytes()
}

fn columns(pods: &[(Pod, Vec<Row>)], whole_ids: bool, wide: bool) -> Vec<&'static Field> {
    let mut columns = fields::LIST.to_vec();
    if whole_ids && let Some(id) = columns.first_mut() {
        *id = &fields::FULL_ID;
    }
    if wide {
        columns.extend(fields::WIDE);
        if pods
            .iter()
            .flat_map(|(_, rows)| rows)
            .any(|row| row.guest.is_some())
        {
            columns.extend(fields::GUEST);
        }
    } else if some_ids_look_alike(pods) {
        columns.push(&fields::NAMESPACE);
    }
    columns
}

/// Whether the same id exists in several of containerd's namespaces.
fn some_ids_look_alike(pods: &[(Pod, Vec<Row>)]) -> bool {
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

/// One array on one line.
pub fn json(pods: &[(Pod, Vec<Row>)], now: SystemTime) -> Vec<u8> {
    let rows = pods.iter().flat_map(|(_, rows)| rows);
    json::line(&rows.map(|row| row.object(now)).collect::<Vec<_>>())
}
