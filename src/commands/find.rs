//! The container that a command line means, by id, by a beginning of one, or by name.

use std::path::PathBuf;
use std::sync::Arc;

use shimstat::node::{Bundle, Container, FindError, IdError, Inventory, Wanted};
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::survey::{AskError, Survey};

use super::{Context, with_remedy};
use crate::exit::Failure;

/// How many candidates of an ambiguous text are listed.
const SHOWN: usize = 20;

/// What a text led to.
pub enum Found {
    Task(Bundle),
    /// There is no such task. The text says where was looked.
    Nothing(String),
}

/// Checks a text from the command line, before anything is done with it.
pub fn wanted(given: &str) -> Result<Wanted, Failure> {
    Wanted::parse(given).map_err(|error| {
        let failure = Failure::usage(error.to_string());
        match error {
            IdError::Pattern => failure.and(
                "nor is it the name of a pod (namespace/pod) or of a container in one (namespace/pod/container)",
            ),
            IdError::TooLong => failure.and("a pod with so long a name is called namespace/pod"),
            IdError::Empty => failure,
        }
    })
}

/// Finds the task among those of the inventory, which is read where that is needed: a full id first, and without that;
/// then the only one whose id begins so or that is called so. Several are never chosen from, but for a pod of which but
/// one generation runs.
pub async fn task(
    context: &Context,
    inventory: &mut Inventory,
    wanted: &Wanted,
    given: &str,
) -> Result<Found, Failure> {
    let (by_id, looked) = match wanted.id().map(|id| (id, context.node.find(id))) {
        // Whole, or so long that it is no pod's name: names need not be read, which takes time on a full node.
        Some((id, Ok(bundle))) if bundle.id == id.as_str() || wanted.is_surely_an_id() => {
            return Ok(Found::Task(bundle));
        }
        Some((_, Ok(bundle))) => (vec![bundle], None),
        Some((id, Err(FindError::Ambiguous { candidates, .. }))) => {
            let whole = candidates.iter().any(|bundle| bundle.id == id.as_str());
            if whole || wanted.is_surely_an_id() {
                return Err(ambiguous(given, candidates, &[]));
            }
            (candidates, None)
        }
        Some((_, Err(FindError::Missing(looked)))) => (Vec::new(), Some(looked)),
        Some((_, Err(FindError::Read(error)))) => return Err(with_remedy(error.to_string())),
        None => (Vec::new(), None),
    };
    let containers = inventory.read().map_err(|error| with_remedy(error.to_string()))?;
    let named: Vec<_> = wanted.named(&containers).into_iter().cloned().collect();
    let named = running(context, named).await;

    let mut fit = by_id;
    for container in &named {
        if !fit.iter().any(|bundle| bundle.path == container.bundle.path) {
            fit.push(container.bundle.clone());
        }
    }
    match (fit.pop(), fit.is_empty()) {
        (Some(bundle), true) => Ok(Found::Task(bundle)),
        (Some(bundle), false) => {
            fit.push(bundle);
            Err(ambiguous(given, fit, &containers))
        }
        (None, _) => Ok(Found::Nothing(looked.unwrap_or_else(|| context.node.looked_in()))),
    }
}

/// Of several of one name those that may run; where none does, the newest. A pod that was made anew can leave its old
/// self behind, stopped and not deleted, and nobody means that one.
async fn running(context: &Context, mut named: Vec<Arc<Container>>) -> Vec<Arc<Container>> {
    if named.len() < 2 {
        return named;
    }
    let states = Survey::new(context.timeout, named.len()).states(&named).await;
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
    named.sort_by_key(|container| container.bundle.created());
    named.pop().into_iter().collect()
}

/// Several containers fit: which, so that a better name for one can be chosen.
fn ambiguous(given: &str, mut candidates: Vec<Bundle>, containers: &[Arc<Container>]) -> Failure {
    candidates.sort();
    let name = |path: &PathBuf| {
        let container = containers
            .iter()
            .find(|container| container.bundle.path == *path)?;
        Some(format!(": {}", container.name()?))
    };
    let mut failure = Failure::new(format!("multiple containers found ({given})"));
    for bundle in candidates.iter().take(SHOWN) {
        failure = failure.and(format!(
            "  {} in namespace {} ({}){}",
            bundle.id,
            bundle.namespace,
            bundle.state_dir.display(),
            name(&bundle.path).unwrap_or_default()
        ));
    }
    if candidates.len() > SHOWN {
        failure = failure.and(format!("  and {} more", candidates.len() - SHOWN));
    }
    failure.and("give more of the id or name, or choose with --namespace or --state")
}
