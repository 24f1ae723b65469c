//! `events`: the statistics of a container, as JSON.

use kata_runtime::duration;
use kata_runtime::node::{Bundle, FindError};
use kata_runtime::stats;
use kata_runtime::survey::{AskError, Lane, Sample};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::{Context, ambiguous, id, with_remedy};
use crate::cli::{EventFormat, Events};
use crate::failure::Failure;
use crate::output;
use crate::ticks::Ticks;

pub async fn run(context: &Context, arguments: &Events) -> Result<(), Failure> {
    let subject = Subject::find(context, &arguments.container)?;
    let show = |sample: &Sample| output::answer(&print(&subject.bundle.id, sample, arguments.format));
    if arguments.stats {
        let sample = subject
            .lane
            .sample(&subject.bundle.id)
            .await
            .map_err(|e| subject.failure(&e, context))?;
        return show(&sample);
    }
    let mut answered = false;
    let mut ticks = Ticks::every(arguments.interval);
    loop {
        ticks.tick().await;
        match subject.lane.sample(&subject.bundle.id).await {
            Ok(sample) => {
                show(&sample)?;
                answered = true;
            }
            Err(AskError::NotRunning(why)) if answered => {
                output::notice(&format!(
                    "container {} is no longer running: {why}",
                    subject.bundle.id
                ));
                return Ok(());
            }
            Err(error @ AskError::NotRunning(_)) => return Err(subject.failure(&error, context)),
            // The stream goes on: the next answer may come.
            Err(error) => output::notice(&format!("container {}: {error}", subject.bundle.id)),
        }
    }
}

/// The container that is asked about.
struct Subject {
    /// As the user gave it.
    given: String,
    bundle: Bundle,
    lane: Lane,
}

impl Subject {
    fn find(context: &Context, given: &str) -> Result<Self, Failure> {
        let bundle = match context.node.find(&id(given)?) {
            Ok(bundle) => bundle,
            Err(FindError::Missing(looked)) => return Err(does_not_exist(given, looked)),
            Err(error) => {
                return Err(match &error {
                    FindError::Ambiguous { candidates, .. } => ambiguous(&error, candidates),
                    _ => with_remedy(error.to_string()),
                });
            }
        };
        let endpoint = bundle
            .endpoint()
            .map_err(|error| with_remedy(format!("container {}: {error}", bundle.id)))?
            .ok_or_else(|| {
                does_not_exist(
                    given,
                    format!("no shim has been started in {}", bundle.path.display()),
                )
            })?;
        context.note(|| format!("container {}: bundle {}", bundle.id, bundle.path.display()));
        context.note(|| {
            format!(
                "container {}: shim {} ({:?})",
                bundle.id, endpoint.address, endpoint.version
            )
        });
        Ok(Self {
            given: given.to_string(),
            bundle,
            lane: Lane::new(endpoint, context.timeout).counting_sockets(),
        })
    }

    fn failure(&self, error: &AskError, context: &Context) -> Failure {
        match error {
            AskError::NotRunning(why) => does_not_exist(&self.given, why.to_string()),
            AskError::Unanswered { .. } => Failure::new(format!("container {}: {error}", self.bundle.id))
                .and(format!(
                    "the shim may be stopped, or its guest hung; wait longer than {} with --timeout",
                    duration::show(context.timeout)
                )),
            _ => with_remedy(format!("container {}: {error}", self.bundle.id)),
        }
    }
}

/// The sentence that users of `kata-runtime events` know, then what was found.
fn does_not_exist(given: &str, found: String) -> Failure {
    Failure::new(format!("Container ID ({given}) does not exist")).and(found)
}

/// An event as bytes, with a newline.
fn print(id: &str, sample: &Sample, format: EventFormat) -> Vec<u8> {
    let event = stats::event(id, &sample.stats);
    let mut text = match format {
        EventFormat::Json => event.to_string().into_bytes(),
        EventFormat::Pretty => {
            let mut text = Vec::with_capacity(4096);
            let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
            // A JSON value has text keys only, and writing to memory does not fail.
            let _ = event.serialize(&mut serializer);
            text
        }
    };
    text.push(b'\n');
    text
}
