//! `list --watch`: what is new, has changed or is gone, as `kubectl get --watch` prints it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use shimstat::node::Inventory;
use shimstat::survey::Survey;

use super::look::{ask, is_wanted, tell_errors};
use super::row::ListRow;
use super::show::ListPrinter;
use crate::cli::List;
use crate::context::Context;
use crate::exit::Failure;
use crate::output;
use crate::ticks::Ticks;

/// Prints rows until the user interrupts.
pub async fn run(
    context: &Context,
    arguments: &List,
    survey: &Survey,
    mut show: ListPrinter<'_>,
    first: impl Iterator<Item = ListRow>,
) -> Result<(), Failure> {
    let mut inventory = Inventory::new(context.node.clone());
    let mut known: HashMap<PathBuf, ListRow> = first.map(|row| (path(&row), row)).collect();
    let mut ticks = Ticks::every(arguments.interval);
    // The first look has been shown.
    ticks.tick().await;
    let mut said = None;
    loop {
        ticks.tick().await;
        let containers = match context.read(&mut inventory).await {
            Ok(containers) => containers,
            Err(failure) => {
                if said.as_ref() != Some(&failure) {
                    output::report(&failure);
                }
                said = Some(failure);
                continue;
            }
        };
        said = None;
        let wanted = containers
            .into_iter()
            .filter(|container| is_wanted(container, arguments));
        let rows = ask(context, survey, wanted).await;
        let (changed, gone) = changes(&mut known, rows);
        let changed = changed.iter().filter_map(|path| known.get(path));
        let rows: Vec<_> = changed.chain(&gone).collect();
        tell_errors(context, arguments, rows.iter().copied());
        if !rows.is_empty() {
            output::answer(&show.changed(&rows, SystemTime::now()))?;
        }
        for row in gone {
            survey.hang_up(&row.container);
        }
    }
}

/// Takes over what a look has found; returns where something is new or has changed, and what is gone.
fn changes(known: &mut HashMap<PathBuf, ListRow>, rows: Vec<ListRow>) -> (Vec<PathBuf>, Vec<ListRow>) {
    let mut before = std::mem::take(known);
    let mut changed = Vec::new();
    for row in rows {
        let path = path(&row);
        if !before.remove(&path).is_some_and(|old| old.looks_like(&row)) {
            changed.push(path.clone());
        }
        known.insert(path, row);
    }
    let mut gone: Vec<_> = before.into_values().map(ListRow::removed).collect();
    gone.sort_by_key(path);
    (changed, gone)
}

fn path(row: &ListRow) -> PathBuf {
    row.container.bundle.path.clone()
}
