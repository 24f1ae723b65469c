//! `list`: what is on the node, by pod.

mod places;
mod row;
mod show;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use shimstat::node::{Bundle, Container, Pod, name_sandboxes, pods};
use shimstat::survey::{ConcurrencyLimit, StateAndGuest, Survey};
use tokio::task::JoinSet;

use crate::cli::{List, ListFormat};
use crate::context::{CONCURRENCY, Context};
use crate::descriptors;
use crate::exit::Failure;
use crate::guest_side::GuestSide;
use crate::{interrupt, output};
use row::Row;
use show::Show;

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
    let mut show = Show::new(arguments)?;
    let bundles = context.bundles()?;
    if bundles.is_empty() {
        output::notice(&format!("no containers: {}", context.node.looked_in()));
        output::notice("`kata-runtime list --places` shows every place; --state names another");
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
    let mut survey = Survey::new(context.timeout, CONCURRENCY);
    if arguments.watch {
        interrupt::ends_quietly();
        survey = survey.keeping_connections();
    }
    let rows = ask(context, &survey, wanted.map(Arc::new)).await;
    let mut pods = by_pod(rows);
    if show.tells_of_guests() {
        ask_guests(context, &survey, &mut pods).await;
    }
    output::answer(&show.all(&pods, SystemTime::now()))?;
    if arguments.watch {
        let rows = pods.into_iter().flat_map(|(_, rows)| rows);
        watch::run(context, arguments, &survey, show, rows).await?;
    }
    Ok(())
}

/// Asks the containers' shims for their states.
async fn ask(
    context: &Context,
    survey: &Survey,
    containers: impl Iterator<Item = Arc<Container>>,
) -> Vec<Row> {
    let asking = survey.begin(containers, StateAndGuest).await;
    // Files are read while the shims are at work; their answers are taken in between.
    let mut rows = Vec::with_capacity(asking.containers().len());
    for container in asking.containers() {
        rows.push(Row::read(container.clone()));
        tokio::task::yield_now().await;
    }
    let answers = asking.answers(context.timeout).await;
    let rows: Vec<_> = rows
        .into_iter()
        .zip(answers)
        .map(|(row, state)| row.with(state))
        .collect();
    for row in &rows {
        if let Some(error) = &row.error {
            context.note(|| format!("container {}: {error}", row.container.id()));
        }
    }
    rows
}

/// The pods, each with its rows: its sandbox's first.
fn by_pod(rows: Vec<Row>) -> Vec<(Pod, Vec<Row>)> {
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

/// Asks the guests of Kata's sandboxes about themselves, all at once and no longer than the timeout in all.
async fn ask_guests(context: &Context, survey: &Survey, pods: &mut [(Pod, Vec<Row>)]) {
    let concurrency = ConcurrencyLimit::new(CONCURRENCY);
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

fn is_filtered(arguments: &List) -> bool {
    arguments.pod_namespace.is_some() || arguments.pod.is_some() || arguments.runtime.is_some()
}

fn is_wanted(container: &Container, arguments: &List) -> bool {
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
