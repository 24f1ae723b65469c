//! `metrics`: the Prometheus metrics of a sandbox, as its monitor sends them or as people read them, and a summary
//! of what the sandbox costs.

mod sandbox;
mod show;
mod summary;

use promtext::Filter;
use shimstat::survey::Survey;

use self::sandbox::Sandbox;
use crate::cli::{Metrics, MetricsFormat};
use crate::context::Context;
use crate::exit::{Failure, Remedy};
use crate::output;
use crate::readings::{self, ReadingError, Readings};
use crate::sandbox_page::{MetricsSource, SandboxMetrics, has_guest_family};

pub async fn run(context: &Context, arguments: &Metrics) -> Result<(), Failure> {
    if arguments.summary {
        return summary::run(context, arguments).await;
    }
    let sandbox = Sandbox::find(context, &arguments.sandbox).await?;
    let survey = Survey::new(context.timeout, 1);
    let metrics = sandbox.scrape(context, &survey, arguments.force).await;
    let SandboxMetrics { body, source } = metrics.map_err(|e| sandbox.failure(&e))?;
    sandbox.announce();
    let mut problems = Vec::new();
    match &source {
        MetricsSource::Monitor { .. } if !has_guest_family(&body) => output::notice(&format!(
            "sandbox {}: the answer has no family of the guest (kata_agent_*, kata_guest_*): the guest may be hung",
            sandbox.id()
        )),
        MetricsSource::Monitor { .. } => {}
        MetricsSource::Agent { agent, why } => output::notice(&format!(
            "sandbox {}: its shim was not asked: {why}; these are the metrics of its guest, from the agent at {agent}, \
             and of its processes, from /proc",
            sandbox.id()
        )),
        MetricsSource::Host { why, guest } => {
            problems.push(format!("sandbox {}: {why}", sandbox.id()));
            if let Some(guest) = guest {
                problems.push(format!("sandbox {}: {guest}", sandbox.id()));
            }
            problems.push("only the metrics of its processes, from /proc, are shown".to_string());
            problems.push(why.remedy().to_string());
        }
    }
    let (answer, left_out) = match (arguments.format.unwrap_or(MetricsFormat::Raw), &arguments.filter) {
        // As it came, to the byte.
        (MetricsFormat::Raw, None) => (body, Vec::new()),
        (format, prefixes) => {
            let filter = Filter::parse(prefixes.as_deref().unwrap_or_default());
            shown(format, &sandbox, &body, &filter).map_err(|error| {
                Failure::new(format!("sandbox {}: {error}", sandbox.id())).and(RAW_TEXT_HAS_ALL)
            })?
        }
    };
    let id = sandbox.id();
    match &arguments.filter {
        Some(prefixes) if answer.is_empty() => {
            problems.push(format!(
                "sandbox {id} has no family whose name starts with {prefixes}"
            ));
            problems.push("kata-runtime metrics SANDBOX shows all families".to_string());
        }
        _ => output::answer(&answer)?,
    }
    // A part of the answer must not pass for the whole.
    problems.extend(left_out.iter().map(|what| format!("sandbox {id}: {what}")));
    if !left_out.is_empty() {
        problems.push(RAW_TEXT_HAS_ALL.to_string());
    }
    if problems.is_empty() {
        return Ok(());
    }
    let failure = problems
        .into_iter()
        .fold(Failure::reported(), |failure, line| failure.and(line));
    Err(failure)
}

/// Where to look for what another format leaves out.
const RAW_TEXT_HAS_ALL: &str = "every line is in the raw text: run `metrics` without --format and --filter";

/// The families that a filter lets through, in a format, and what is missing in it.
fn shown(
    format: MetricsFormat,
    sandbox: &Sandbox,
    body: &[u8],
    filter: &Filter,
) -> Result<(Vec<u8>, Vec<String>), ReadingError> {
    if format == MetricsFormat::Raw {
        let (page, tally) = readings::select(body, filter)?;
        return Ok((page, readings::invalid_lines(body, &tally).into_iter().collect()));
    }
    let Readings { families, left_out } = Readings::read(body, filter)?;
    let answer = match (families.as_slice(), format) {
        ([], _) => Vec::new(),
        (families, MetricsFormat::Json) => show::json(sandbox.id(), families),
        (families, MetricsFormat::Jsonl) => show::json_lines(families),
        (families, MetricsFormat::Csv) => show::csv(families),
        (families, MetricsFormat::Table | MetricsFormat::Raw) => show::table(families),
    };
    Ok((answer, left_out))
}
