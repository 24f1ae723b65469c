//! `metrics`: the Prometheus metrics of a sandbox, as its monitor sends them or as people read them, and a summary
//! of what the sandbox costs.

pub mod readings;
mod sandbox;
mod show;
mod summary;

use promtext::{Filter, Tally};
use shimstat::survey::Survey;

use self::readings::{ReadingError, Readings};
use self::sandbox::Sandbox;
use super::Context;
use crate::cli::{Metrics, MetricsFormat};
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
    let answer = match arguments.format.unwrap_or(MetricsFormat::Raw) {
        MetricsFormat::Raw => match &arguments.filter {
            // As it came, to the byte.
            None => body,
            Some(prefixes) => {
                let (page, tally) = readings::select(&body, &Filter::parse(prefixes))
                    .map_err(|e| Failure::new(format!("sandbox {}: {e}", sandbox.id())))?;
                say_what_is_left_out(&sandbox, &tally);
                page
            }
        },
        format => {
            let filter = Filter::parse(arguments.filter.as_deref().unwrap_or_default());
            let readings = Readings::read(&body, &filter).map_err(|e| unreadable(&sandbox, &e))?;
            say_what_is_left_out(&sandbox, &readings.tally);
            match readings.families.as_slice() {
                [] => Vec::new(),
                families if format == MetricsFormat::Json => show::json(sandbox.id(), families),
                families => show::table(families),
            }
        }
    };
    if answer.is_empty()
        && let Some(prefixes) = &arguments.filter
    {
        return Err(Failure::new(format!(
            "sandbox {} has no family whose name begins with {prefixes}",
            sandbox.id()
        )));
    }
    output::answer(&answer)
}

/// Lines that are no samples to Prometheus are none to us; they are in the raw text.
fn say_what_is_left_out(sandbox: &Sandbox, tally: &Tally) {
    if let Some(first) = tally.first {
        output::notice(&format!(
            "sandbox {}: {} lines of the answer are no samples and are left out; the first fault is in line {}: {}",
            sandbox.id(),
            tally.lost,
            first.line,
            first.fault
        ));
    }
}

/// A part of the answer would pass for the whole of it.
fn unreadable(sandbox: &Sandbox, error: &ReadingError) -> Failure {
    let failure = Failure::new(format!("sandbox {}: {error}", sandbox.id()));
    match error {
        ReadingError::Lost { .. } => failure.and(
            "nothing is shown rather than a part; see the raw text, or choose other families with --filter",
        ),
        ReadingError::TooLong(_) => failure.and("the raw text has no such limit"),
    }
}

/// Whether a sandbox's metrics have a family of its guest. A Kata shim whose guest does not answer leaves those
/// out, and says nothing of it.
pub fn has_guest_family(body: &[u8]) -> bool {
    has_family(body, "kata_agent_") || has_family(body, "kata_guest_")
}

/// Whether a sandbox's metrics have a sample whose name begins so.
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
