//! `kata-runtime` alone: what is on this node, and what to ask next.

use std::collections::{BTreeMap, BTreeSet};

use shimstat::node::{Inventory, Pod, Runtime, pods, usual_places};

use crate::context::Context;
use crate::exit::Failure;
use crate::output;
use crate::show::name::label;
use crate::show::table::{Align, Table};
use crate::show::text::escape;

pub async fn run(context: &Context) -> Result<(), Failure> {
    let containers = context.read(&mut Inventory::new(context.node.clone())).await?;
    output::answer(text(context, &pods(&containers)).as_bytes())?;
    // Such a container is counted as one in no sandbox, which it may not be.
    match context.tell_unread(&containers) {
        true => Err(Failure::reported()),
        false => Ok(()),
    }
}

fn text(context: &Context, pods: &[Pod]) -> String {
    let mut runtimes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for container in pods.iter().flat_map(Pod::all) {
        let runtime = container
            .runtime()
            .map_or("-".to_string(), |runtime: Runtime| runtime.to_string());
        let (sandboxes, containers) = runtimes.entry(runtime).or_default();
        *if container.is_sandbox() {
            sandboxes
        } else {
            containers
        } += 1;
    }
    let mut text = if runtimes.is_empty() {
        format!(
            "There are no containers on this node: {}.\n",
            context.node.looked_in()
        )
    } else {
        let mut table = Table::new([
            ("RUNTIME", Align::Left),
            ("SANDBOXES", Align::Right),
            ("CONTAINERS", Align::Right),
        ]);
        for (runtime, (sandboxes, containers)) in &runtimes {
            table.row([runtime.clone(), sandboxes.to_string(), containers.to_string()]);
        }
        format!(
            "On this node:\n\n{}\nFound in {}.\n",
            table.lines(),
            found_in(pods)
        )
    };
    let example = pods
        .iter()
        .find_map(|pod| pod.containers.first().or(pod.sandbox.as_ref()))
        .map(|container| label(container));
    text += "\nTry next:\n";
    let commands = match &example {
        None => vec![
            ("list --places", "where containers are looked for".to_string()),
            ("--help", "all commands and options".to_string()),
        ],
        Some(example) => vec![
            ("list", "each of them, with its pod and status".to_string()),
            ("top", "what they use, live".to_string()),
            (
                "events --stats CONTAINER",
                format!("one of them in full, such as {}", escape(example)),
            ),
        ],
    };
    for (command, about) in commands {
        text += &format!("  kata-runtime {command:26}{about}\n");
    }
    text
}

/// The directories that have containers, with who keeps them.
fn found_in(pods: &[Pod]) -> String {
    let directories: BTreeSet<_> = pods
        .iter()
        .flat_map(Pod::all)
        .map(|container| &container.bundle.state_dir)
        .collect();
    let shown: Vec<_> = directories
        .into_iter()
        .map(|directory| {
            let usual = usual_places().find(|(path, _)| path == directory);
            match usual {
                Some((_, usual)) => format!("{} ({})", directory.display(), usual.keeper),
                None => directory.display().to_string(),
            }
        })
        .collect();
    shown.join(", ")
}
