//! `list`: what is on the node, by pod.

mod row;
mod show;

use std::collections::HashMap;
use std::time::SystemTime;

use shimstat::node::{Bundle, Container, Pod, Task, pods};
use shimstat::survey::Survey;

use super::{AT_ONCE, Context};
use crate::cli::{List, ListFormat};
use crate::descriptors;
use crate::exit::Failure;
use crate::output;
use row::Row;

pub async fn run(context: &Context, arguments: &List) -> Result<(), Failure> {
    let bundles = context.bundles()?;
    if bundles.is_empty() {
        output::notice(&format!("no containers: {}", context.node.looked_in()));
    }
    if arguments.quiet && !is_filtered(arguments) {
        // Their names alone, and whether they are whole: no file need be read for that.
        let bundles = bundles.into_iter().filter(Bundle::is_complete);
        return output::answer(show::ids(bundles.map(|bundle| bundle.id)).as_bytes());
    }
    let tasks = bundles.into_iter().filter_map(Task::read);
    descriptors::allow_many();
    let survey = Survey::new(context.timeout, AT_ONCE);
    let answers = if is_filtered(arguments) {
        let wanted = tasks
            .map(Container::of)
            .filter(|container| is_wanted(container, arguments));
        if arguments.quiet {
            return output::answer(show::ids(wanted.map(|container| container.bundle.id)).as_bytes());
        }
        survey.states_within(context.timeout, wanted, Row::read).await
    } else {
        survey
            .states_within(context.timeout, tasks, |task| Row::read(Container::of(task)))
            .await
    };
    let rows = answers.into_iter().map(|(row, state)| row.with(state)).collect();
    let (rows, now) = (in_order(rows), SystemTime::now());
    for row in &rows {
        if let Some(error) = &row.error {
            context.note(|| format!("container {}: {error}", row.container.bundle.id));
        }
    }
    output::answer(&match arguments.format {
        ListFormat::Table => show::table(&rows, now, arguments.no_trunc, false),
        ListFormat::Wide => show::table(&rows, now, arguments.no_trunc, true),
        ListFormat::Json => show::json(&rows, now),
    })
}

/// Sandboxes with their containers under them, then the others.
fn in_order(rows: Vec<Row>) -> Vec<Row> {
    let containers: Vec<_> = rows.iter().map(|row| row.container.clone()).collect();
    let mut rows: HashMap<_, _> = rows
        .into_iter()
        .map(|row| (row.container.bundle.path.clone(), row))
        .collect();
    let (pods, plain) = pods(&containers);
    pods.iter()
        .flat_map(Pod::all)
        .chain(&plain)
        .filter_map(|container| rows.remove(&container.bundle.path))
        .collect()
}

fn is_filtered(arguments: &List) -> bool {
    arguments.pod_namespace.is_some() || arguments.pod.is_some() || arguments.runtime.is_some()
}

fn is_wanted(container: &Container, arguments: &List) -> bool {
    let names = &container.names;
    let namespace = |wanted: &str| names.namespace.as_deref() == Some(wanted);
    let pod = |wanted: &str| names.name.as_deref() == Some(wanted);
    arguments.pod_namespace.as_deref().is_none_or(namespace)
        && arguments.pod.as_deref().is_none_or(|wanted| {
            pod(wanted)
                || wanted
                    .split_once('/')
                    .is_some_and(|(space, name)| namespace(space) && pod(name))
        })
        && arguments.runtime.as_deref().is_none_or(|wanted| {
            container
                .runtime()
                .is_some_and(|runtime| runtime.is_called(wanted))
        })
}
