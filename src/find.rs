//! Which container a command line means: by id, by a prefix of one, or by name.

use std::sync::Arc;

use shimstat::node::{Bundle, Container, FindError, IdError, Inventory, Wanted};
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::survey::{AskError, State, Survey};

use crate::context::Context;
use crate::exit::{Failure, LIST, MORE_OF_IT, PLACES, RETRY, Remedy};

const NAMES: &str = "kata-runtime list shows ids and names";

/// How many candidates for an ambiguous name are listed.
const SHOWN: usize = 20;

/// What was found.
pub enum Found {
    Container(Arc<Container>),
    /// There is no such task, or it is being created.
    Nothing(Nothing),
}

/// Where we looked, or what is there instead, and what to do.
pub struct Nothing {
    pub found: String,
    pub remedy: String,
}

/// Checks an id or a name from the command line, before anything is done with it.
pub fn wanted(given: &str) -> Result<Wanted, Failure> {
    Wanted::parse(given).map_err(|error| {
        let failure = Failure::usage(error.to_string());
        match error {
            IdError::Pattern => failure
                .and("it is not the name of a pod (namespace/pod) or of a container in one (namespace/pod/container) either")
                .and(NAMES),
            IdError::TooLong => failure.and("for a pod with a name this long, give namespace/pod"),
            IdError::Empty => failure.and(NAMES),
        }
    })
}

/// Finds the container: the one with this full id, for which the inventory need not be read; otherwise the only one
/// whose id starts with it or that has this name. If several match, none is chosen, except among generations of a pod of
/// which only one runs.
pub async fn container(
    context: &Context,
    inventory: &mut Inventory,
    wanted: &Wanted,
    given: &str,
) -> Result<Found, Failure> {
    let (by_id, missing) = match wanted.id().map(|id| (id, context.node.find(id))) {
        // A full id, or too long for a pod's name: names need not be read, which takes time on a full node.
        Some((id, Ok(bundle))) if bundle.id == id.as_str() || wanted.is_surely_an_id() => {
            return Ok(read(bundle));
        }
        Some((_, Ok(bundle))) => (vec![bundle], None),
        Some((id, Err(FindError::Ambiguous { candidates, .. }))) => {
            let whole = candidates.iter().any(|bundle| bundle.id == id.as_str());
            if whole || wanted.is_surely_an_id() {
                return Err(ambiguous(given, candidates, &[]));
            }
            (candidates, None)
        }
        Some((_, Err(FindError::Read(error)))) => return Err(error.into()),
        Some((_, Err(error @ (FindError::Missing | FindError::Creating(_))))) => (Vec::new(), Some(error)),
        None => (Vec::new(), None),
    };
    let containers = inventory.read()?;
    let named: Vec<_> = wanted.named(&containers).into_iter().cloned().collect();
    let named = running(context, named).await;

    let mut fit = by_id;
    for container in &named {
        if !fit.contains(&container.bundle) {
            fit.push(container.bundle.clone());
        }
    }
    match (fit.pop(), fit.is_empty()) {
        (Some(bundle), true) => Ok(read(bundle)),
        (Some(bundle), false) => {
            fit.push(bundle);
            Err(ambiguous(given, fit, &containers))
        }
        (None, _) => Ok(Found::Nothing(match missing {
            Some(error @ FindError::Creating(_)) => Nothing {
                remedy: error.remedy().to_string(),
                found: error.to_string(),
            },
            _ => match wanted.in_pod(&containers).as_slice() {
                [] => Nothing {
                    found: context.node.looked_in(),
                    remedy: if context.node.is_there() { LIST } else { PLACES }.to_string(),
                },
                members => only_containers(members),
            },
        })),
    }
}

/// A pod whose sandbox is not on disk, as with some sandboxers.
fn only_containers(members: &[&Arc<Container>]) -> Nothing {
    let names = members.iter().take(SHOWN).filter_map(|member| member.name());
    let names: Vec<_> = names.collect();
    Nothing {
        found: format!(
            "its sandbox is not on disk, its containers are: {}",
            names.join(", ")
        ),
        remedy: "name one of its containers".to_string(),
    }
}

fn read(bundle: Bundle) -> Found {
    let path = bundle.path.clone();
    match Container::read(bundle) {
        Some(container) => Found::Container(Arc::new(container)),
        // It is being created or deleted.
        None => Found::Nothing(Nothing {
            found: format!("no shim has been started in {}", path.display()),
            remedy: RETRY.to_string(),
        }),
    }
}

/// Of several containers with the same name, those that may be running, or the newest if none is: a pod that was
/// recreated can leave its predecessor behind, stopped and not deleted, and nobody means that one.
async fn running(context: &Context, mut named: Vec<Arc<Container>>) -> Vec<Arc<Container>> {
    if named.len() < 2 {
        return named;
    }
    let survey = Survey::new(context.timeout, named.len());
    let states = survey
        .begin(named.clone(), State)
        .await
        .answers(context.timeout)
        .await;
    let may_run = |state: &Result<TaskState, AskError>| match state {
        Ok(state) => state.status != TaskStatus::Stopped,
        Err(error) => !matches!(error, AskError::NotRunning(_)),
    };
    let running: Vec<_> = named
        .iter()
        .zip(&states)
        .filter(|(_, state)| may_run(state))
        .map(|(container, _)| container.clone())
        .collect();
    if !running.is_empty() {
        return running;
    }
    named.sort_by_key(|container| container.bundle.created().ok());
    named.pop().into_iter().collect()
}

/// Lists the containers that match, so that a better name can be chosen.
fn ambiguous(given: &str, mut candidates: Vec<Bundle>, containers: &[Arc<Container>]) -> Failure {
    candidates.sort();
    let name = |bundle: &Bundle| {
        let container = containers.iter().find(|container| container.bundle == *bundle)?;
        Some(format!(": {}", container.name()?))
    };
    let mut failure = Failure::new(format!("multiple containers found ({given})"));
    for bundle in candidates.iter().take(SHOWN) {
        failure = failure.and(format!(
            "  {} in namespace {} ({}){}",
            bundle.id,
            bundle.namespace,
            bundle.state_dir.display(),
            name(bundle).unwrap_or_default()
        ));
    }
    if candidates.len() > SHOWN {
        failure = failure.and(format!("  and {} more", candidates.len() - SHOWN));
    }
    failure.and(MORE_OF_IT)
}
