//! `list`: what is on the node, by pod.

mod row;
mod show;

use std::sync::Arc;
use std::time::SystemTime;

use kata_runtime::node::{Container, Inventory, Pod, pods};
use kata_runtime::survey::Survey;

use super::{AT_ONCE, Context, with_remedy};
use crate::cli::{List, ListFormat};
use crate::descriptors;
use crate::failure::Failure;
use crate::output;
use row::Row;

pub async fn run(context: &Context, arguments: &List) -> Result<(), Failure> {
    let mut containers = Inventory::new(context.node.clone())
        .read()
        .map_err(|error| with_remedy(error.to_string()))?;
    if containers.is_empty() {
        output::notice(&format!("no containers: {}", context.node.looked_in()));
    }
    containers.retain(|container| is_wanted(container, arguments));
    let containers = ordered(&containers);
    if arguments.quiet {
        return output::answer(show::ids(&containers).as_bytes());
    }
    descriptors::allow_many();
    let survey = Survey::new(context.timeout, AT_ONCE);
    let states = survey.states_within(context.timeout, &containers).await;
    let now = SystemTime::now();
    let rows: Vec<_> = containers
        .iter()
        .zip(states)
        .map(|(container, state)| Row::new(container, state, now))
        .collect();
    for row in &rows {
        if let Some(error) = &row.error {
            context.note(|| format!("container {}: {error}", row.container.bundle.id));
        }
    }
    output::answer(&match arguments.format {
        ListFormat::Table => show::table(&rows, arguments.no_trunc, false),
        ListFormat::Wide => show::table(&rows, arguments.no_trunc, true),
        ListFormat::Json => show::json(&rows),
    })
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

/// Sandboxes with their containers under them, then the others.
fn ordered(containers: &[Arc<Container>]) -> Vec<Arc<Container>> {
    let (pods, plain) = pods(containers);
    pods.iter().flat_map(Pod::all).cloned().chain(plain).collect()
}
