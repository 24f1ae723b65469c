//! `list`: what is on the node, by pod.

mod look;
mod places;
mod row;
mod show;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use shimstat::node::{Bundle, Container, Pod, name_sandboxes, pods};

use crate::cli::{List, ListFormat};
use crate::context::Context;
use crate::descriptors;
use crate::exit::Failure;
use crate::{interrupt, output};
use look::{ask, ask_guests, is_filtered, is_wanted, tell_errors};
use row::ListRow;
use show::ListPrinter;

pub async fn run(context: &Context, arguments: &List) -> Result<(), Failure> {
    if arguments.places {
        let places = context.node.places();
        return output::answer(&match arguments.format {
            ListFormat::Json => places::json(&places),
            ListFormat::Jsonl | ListFormat::Csv => {
                return Err(Failure::usage("--places is shown as table, wide or json"));
            }
            ListFormat::Table => places::table(&places, false),
            ListFormat::Wide => places::table(&places, true),
        });
    }
    let mut show = ListPrinter::new(arguments)?;
    let bundles = context.bundles()?;
    if bundles.is_empty() {
        context.tell_none();
    }
    if arguments.quiet && !is_filtered(arguments) {
        // The directories' names are enough, with whether each is complete: no file is read.
        let bundles = bundles.into_iter().filter(Bundle::is_complete);
        return output::answer(show::ids(bundles.map(|bundle| bundle.id)).as_bytes());
    }
    let containers = bundles.into_iter().filter_map(Container::read);
    let wanted: Box<dyn Iterator<Item = Container>> = if is_filtered(arguments) {
        let containers: Vec<_> = containers.collect();
        name_sandboxes(&containers);
        Box::new(
            containers
                .into_iter()
                .filter(|container| is_wanted(container, arguments)),
        )
    } else {
        // Each is asked as soon as its address is read.
        Box::new(containers)
    };
    if arguments.quiet {
        return output::answer(show::ids(wanted.map(|container| container.bundle.id.clone())).as_bytes());
    }
    descriptors::allow_many();
    let mut survey = context.survey();
    if arguments.watch {
        interrupt::ends_quietly();
        survey = survey.keeping_connections();
    }
    let rows = ask(context, &survey, wanted.map(Arc::new)).await;
    tell_errors(context, arguments, &rows);
    let mut pods = by_pod(rows);
    if show.tells_of_guests() {
        ask_guests(context, &survey, &mut pods).await;
    }
    context.note_cost(&survey);
    output::answer(&show.all(&pods, SystemTime::now()))?;
    let is_unread = |row: &ListRow| row.container.unread().is_some();
    if arguments.watch {
        let rows = pods.into_iter().flat_map(|(_, rows)| rows);
        watch::run(context, arguments, &survey, show, rows).await?;
    } else if pods.iter().flat_map(|(_, rows)| rows).any(is_unread) {
        // What it is was said.
        return Err(Failure::reported());
    }
    Ok(())
}

/// The pods, each with its rows: its sandbox's first.
fn by_pod(rows: Vec<ListRow>) -> Vec<(Pod, Vec<ListRow>)> {
    let containers: Vec<_> = rows.iter().map(|row| row.container.clone()).collect();
    let path = |container: &Container| container.bundle.path.clone();
    let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (path(&row.container), row)).collect();
    let mut rows_of = |pod: &Pod| pod.all().filter_map(|one| rows.remove(&path(one))).collect();
    pods(&containers)
        .into_iter()
        .map(|pod| {
            let rows = rows_of(&pod);
            (pod, rows)
        })
        .collect()
}
