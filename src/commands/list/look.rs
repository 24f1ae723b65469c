//! What `list` asks, and which containers it is asked for.

use std::sync::Arc;
use std::time::Instant;

use shimstat::node::{Container, Pod};
use shimstat::survey::{StateAndGuest, Survey};
use tokio::task::JoinSet;

use super::row::{self, ListRow};
use crate::cli::{List, ListFormat};
use crate::context::{CONCURRENCY, Context};
use crate::guest_side::GuestSide;
use crate::output;

/// Asks the containers' shims for their states.
pub async fn ask(
    context: &Context,
    survey: &Survey,
    containers: impl Iterator<Item = Arc<Container>>,
) -> Vec<ListRow> {
    let asking = survey.begin(containers, StateAndGuest).await;
    // Files are read while the shims are at work; their answers are taken in between.
    let mut rows = Vec::with_capacity(asking.containers().len());
    for container in asking.containers() {
        rows.push(ListRow::read(container.clone()));
        tokio::task::yield_now().await;
    }
    let answers = asking.answers(context.timeout).await;
    let rows: Vec<_> = rows
        .into_iter()
        .zip(answers)
        .map(|(row, state)| row.with(state))
        .collect();
    // They are listed without their names, and not below their sandboxes.
    context.tell_unread(rows.iter().map(|row| &row.container));
    for row in &rows {
        if let Some(error) = &row.unread {
            output::notice(&format!("container {}: {error}", row.container.id()));
        }
        if let Some(error) = &row.error {
            context.note(|| format!("container {}: {error}", row.container.id()));
        }
    }
    rows
}

/// Says what is wrong with containers for whose status there is no word, where that was not said: it is in JSON, and with
/// `--verbose` it is said of all.
pub fn tell_errors<'a>(context: &Context, arguments: &List, rows: impl IntoIterator<Item = &'a ListRow>) {
    if context.verbose || matches!(arguments.format, ListFormat::Json | ListFormat::Jsonl) {
        return;
    }
    for row in rows.into_iter().filter(|row| row.status == row::ERROR) {
        let error = row.error.as_deref().unwrap_or_default();
        output::notice(&format!("container {}: {error}", row.container.id()));
    }
}

/// Asks the guests of Kata's sandboxes about themselves, all at once and no longer than the timeout in all.
pub async fn ask_guests(context: &Context, survey: &Survey, pods: &mut [(Pod, Vec<ListRow>)]) {
    let concurrency = context.concurrency_limit(CONCURRENCY);
    let mut asked = JoinSet::new();
    for (index, (pod, rows)) in pods.iter().enumerate() {
        let runs = rows
            .first()
            .is_some_and(|row| row.container.id() == pod.id && row.error.is_none());
        if runs && survey.has_guest(pod) {
            let (survey, pod, concurrency) = (survey.clone(), pod.clone(), concurrency.clone());
            asked.spawn(async move {
                let guest = concurrency.run(Box::pin(GuestSide::ask(&survey, &pod))).await;
                (index, guest)
            });
        }
    }
    let deadline = Instant::now() + context.timeout;
    while let Ok(Some(Ok((index, guest)))) = tokio::time::timeout_at(deadline.into(), asked.join_next()).await
    {
        let Some(row) = pods.get_mut(index).and_then(|(_, rows)| rows.first_mut()) else {
            continue;
        };
        match guest {
            Ok(guest) => row.guest = Some(guest),
            Err(error) => context.note(|| format!("sandbox {}: {error}", row.container.id())),
        }
    }
}

pub fn is_filtered(arguments: &List) -> bool {
    arguments.pod_namespace.is_some() || arguments.pod.is_some() || arguments.runtime.is_some()
}

pub fn is_wanted(container: &Container, arguments: &List) -> bool {
    // A spec is read only if a filter needs it.
    let namespace = |wanted: &str| container.names().namespace.as_deref() == Some(wanted);
    let pod = |wanted: &str| container.names().name.as_deref() == Some(wanted);
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
