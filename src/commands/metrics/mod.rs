//! `metrics`: the Prometheus metrics of a sandbox, as its monitor sends them or as people read them, and a summary
//! of what the sandbox costs.

pub mod readings;
mod sandbox;
mod show;
mod summary;

use promtext::Filter;
use shimstat::survey::Survey;

use self::readings::{ReadingError, Readings};
use self::sandbox::Sandbox;
use crate::cli::{Metrics, MetricsFormat};
use crate::context::Context;
use crate::exit::Failure;
use crate::output;

pub async fn run(context: &Context, arguments: &Metrics) -> Result<(), Failure> {
    if arguments.summary {
        return summary::run(context, arguments).await;
    }
    let sandbox = Sandbox::find(context, &arguments.sandbox).await?;
    let survey = Survey::new(context.timeout, 1);
    let page = sandbox.scrape(context, &survey, arguments.force).await;
    let body = page.map_err(|e| sandbox.failure(&e, context))?.body;
    sandbox.announce();
    if !has_guest_family(&body) {
        output::notice(&format!(
            "sandbox {}: the answer has no family of the guest (kata_agent_*, kata_guest_*): the guest may be hung",
            sandbox.id()
        ));
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
    let mut problems = Vec::new();
    match &arguments.filter {
        Some(prefixes) if answer.is_empty() => {
            problems.push(format!(
                "sandbox {id} has no family whose name starts with {prefixes}"
            ));
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
    let answer = match families.as_slice() {
        [] => Vec::new(),
        families if format == MetricsFormat::Json => show::json(sandbox.id(), families),
        families => show::table(families),
    };
    Ok((answer, left_out))
}

/// Whether a sandbox's metrics have a family of its guest. A Kata shim whose guest does not answer leaves those
/// out, and says nothing of it.
pub fn has_guest_family(body: &[u8]) -> bool {
    has_family(body, "kata_agent_") || has_family(body, "kata_guest_")
}

/// Whether a sandbox's metrics have a sample whose name starts with `prefix`.
pub fn has_family(body: &[u8], prefix: &str) -> bool {
    let line = format!("\n{prefix}");
    body.starts_with(prefix.as_bytes()) || memchr::memmem::find(body, line.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_guest_shows_by_its_missing_families() {
        let healthy = include_str!("../../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
        assert!(has_guest_family(healthy.as_bytes()));
        let hung: String = healthy
            .lines()
            .filter(|line| !line.starts_with("kata_agent_") && !line.starts_with("kata_guest_"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(
            hung.contains("kata_guest_"),
            "its HELP and TYPE alone are no family"
        );
        assert!(!has_guest_family(hung.as_bytes()));
    }
}
