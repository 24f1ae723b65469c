//! `metrics --summary`: what a sandbox costs, each number with its source.

mod guest;
mod look;
mod model;
mod show;
mod vm;

use shimstat::node::processes::vmm;
use shimstat::survey::Survey;

use self::look::Look;
use self::model::Summary;
use super::sandbox::Sandbox;
use crate::cli::{Metrics, MetricsFormat};
use crate::context::Context;
use crate::exit::{self, Failure};
use crate::output;

pub async fn run(context: &Context, arguments: &Metrics) -> Result<(), Failure> {
    if let Some(MetricsFormat::Raw | MetricsFormat::Jsonl | MetricsFormat::Csv) = arguments.format {
        return Err(Failure::usage("--summary is shown as table or json"));
    }
    let sandbox = Sandbox::find(context, &arguments.sandbox).await?;
    // One call to a sandbox at a time, whatever it is.
    let survey = Survey::new(context.timeout, 1);
    let first = Look::take(context, &sandbox, &survey, arguments.force).await?;
    let summary = match arguments.interval {
        None => Summary::new(sandbox.id(), &first, None),
        Some(interval) => {
            tokio::time::sleep(interval).await;
            let second = Look::take(context, &sandbox, &survey, arguments.force).await?;
            Summary::new(sandbox.id(), &second, Some(&first))
        }
    };
    let vmm = vmm(&first.processes.1).and_then(|part| part.processes.first());
    if let Some(why) = survey.hides_network(vmm.map_or(0, |process| process.pid)) {
        output::notice(exit::hidden(why));
    }
    output::answer(&match arguments.format {
        Some(MetricsFormat::Json) => show::json(&summary),
        _ => show::table(&summary),
    })
}
