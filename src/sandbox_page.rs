//! A sandbox's metrics: as its monitor sends them, or made here, where its shim is better not asked.
//!
//! Kata's Rust shim aborts when it is asked for metrics of some hypervisors, and a shim whose guest hangs waits for it.
//! The families about the guest are then asked of the agent in it, over a connection of our own, and those about the
//! processes on the host are made of `/proc`, under the names of Kata's Go shim.

use std::sync::Arc;

use promtext::{Filter, Kind, Merge, Page, Relabel, Writer};
use shimstat::guest::GuestAddress;
use shimstat::node::processes::{HostFamily, kata_families};
use shimstat::node::{Pod, host_processes, hypervisor};
use shimstat::shim::address::Address;
use shimstat::survey::{AskError, GuestMetrics, MonitorError, MonitorPage, MonitorQuestion, NoGuest, Survey};

/// The families that an agent tells. A guest is untrusted, and has no others.
const GUESTS: &str = "kata_agent_,kata_guest_";

/// The metrics of a sandbox, in Prometheus' text format, and where they come from.
pub struct SandboxMetrics {
    pub body: Vec<u8>,
    pub source: MetricsSource,
}

pub enum MetricsSource {
    Monitor {
        address: Address,
        /// Why the guest could not be asked first whether it lives.
        no_guest: Option<Arc<NoGuest>>,
    },
    /// The agent and `/proc`, because its shim must not be asked.
    Agent { agent: GuestAddress, why: MonitorError },
    /// `/proc` alone, because neither its shim nor its guest was to be asked, or could be.
    Host {
        why: MonitorError,
        /// Why the guest did not tell, where the reason is another.
        guest: Option<MonitorError>,
    },
}

impl From<&MonitorPage> for MetricsSource {
    fn from(page: &MonitorPage) -> Self {
        Self::Monitor {
            address: page.address.clone(),
            no_guest: page.no_guest.clone(),
        }
    }
}

/// What is said of a guest that could not be asked first.
pub fn without_guest(why: &NoGuest) -> String {
    format!("its shim was asked without asking its guest first: {why}")
}

/// The metrics of a pod's sandbox. Its monitor may send `most` bytes.
pub async fn ask(survey: &Survey, pod: &Pod, most: usize) -> Result<SandboxMetrics, MonitorError> {
    let why = match survey.ask_monitor(pod, MonitorQuestion::Metrics, most).await {
        Ok(page) => {
            return Ok(SandboxMetrics {
                source: MetricsSource::from(&page),
                body: page.body,
            });
        }
        Err(why) => why,
    };
    match &why {
        // Rare, and a node has thousands of pods: it takes no room until it is needed.
        MonitorError::Risk(_) => match Box::pin(survey.guest_metrics(pod)).await {
            Ok(metrics) => {
                let body = page(pod, Some(&metrics), metrics.task_pid);
                let agent = metrics.address;
                let source = MetricsSource::Agent { agent, why };
                Ok(SandboxMetrics { body, source })
            }
            Err(guest) => host_alone(pod, why, Some(guest)),
        },
        MonitorError::Ask(AskError::GuestHung { .. }) => host_alone(pod, why, None),
        _ => Err(why),
    }
}

fn host_alone(
    pod: &Pod,
    why: MonitorError,
    guest: Option<MonitorError>,
) -> Result<SandboxMetrics, MonitorError> {
    let state = match guest.as_ref().unwrap_or(&why) {
        MonitorError::Ask(AskError::GuestHung { state, .. } | AskError::NoGuest { state, .. }) => {
            state.as_ref()
        }
        _ => None,
    };
    let body = page(pod, None, state.map(|state| state.pid));
    if body.is_empty() {
        return Err(why);
    }
    let source = MetricsSource::Host { why, guest };
    Ok(SandboxMetrics { body, source })
}

/// The families that the agent and `/proc` tell, sorted by name.
fn page(pod: &Pod, guest: Option<&GuestMetrics>, task_pid: Option<u32>) -> Vec<u8> {
    let machine = hypervisor::virtual_machine(&pod.id).ok().flatten();
    let shim_pid = pod.main().and_then(|main| main.shim_pid());
    let processes = host_processes(machine.as_ref(), shim_pid, task_pid);
    let host = text(&kata_families(&processes, task_pid));
    compose(guest.map_or("", |guest| &guest.text), host)
}

/// What a guest tells under names that are not its own is left out, and so are lines that are not samples.
fn compose(guest: &str, host: Vec<u8>) -> Vec<u8> {
    let read = |text: Vec<u8>| Page::read(text, Relabel::default()).ok();
    let guest = read(guest.as_bytes().to_vec())
        .and_then(|page| read(Merge::new(vec![page], &Filter::parse(GUESTS)).into_bytes()));
    let pages = guest.into_iter().chain(read(host)).collect();
    Merge::new(pages, &Filter::default()).into_bytes()
}

fn text(families: &[HostFamily]) -> Vec<u8> {
    let mut writer = Writer::default();
    for family in families {
        // `HostFamily::TYPE`.
        let mut samples = writer.family(family.name, Kind::Gauge, family.help);
        for sample in &family.samples {
            let labels: Vec<_> = sample
                .labels
                .iter()
                .map(|(name, value)| (*name, value.as_ref()))
                .collect();
            samples.sample(&labels, sample.value);
        }
    }
    writer.into_text()
}

/// Whether a sandbox's metrics have a family of its guest. A Kata shim whose guest does not answer leaves those
/// out, and says nothing of it.
pub fn has_guest_family(body: &[u8]) -> bool {
    has_family(body, "kata_agent_") || has_family(body, "kata_guest_")
}

/// Whether a sandbox's metrics have a sample whose name starts with a prefix.
pub fn has_family(body: &[u8], prefix: &str) -> bool {
    let line = format!("\n{prefix}");
    body.starts_with(prefix.as_bytes()) || memchr::memmem::find(body, line.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shimstat::node::processes::HostSample;

    #[test]
    fn a_hung_guest_shows_by_its_missing_families() {
        let healthy = include_str!("../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
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

    #[test]
    fn a_guest_tells_its_own_families_and_no_others() {
        let family = HostFamily {
            name: "kata_hypervisor_netdev",
            help: "Net devices statistics.",
            samples: vec![HostSample {
                labels: vec![("interface", "a\"b\n".into()), ("item", "recv_bytes".into())],
                value: u64::MAX,
            }],
        };
        let guest = "# TYPE kata_guest_load gauge\nkata_guest_load{item=\"load1\"} 0.10\nkata_hypervisor_threads 7\n\
                     no sample\nkata_shim_fds 1\nup 1\nkata_agent_threads 3\n";
        let page = String::from_utf8(compose(guest, text(&[family]))).unwrap();
        assert_eq!(
            page,
            "# TYPE kata_agent_threads untyped\n\
             kata_agent_threads 3\n\
             # TYPE kata_guest_load gauge\n\
             kata_guest_load{item=\"load1\"} 0.10\n\
             # HELP kata_hypervisor_netdev Net devices statistics.\n\
             # TYPE kata_hypervisor_netdev gauge\n\
             kata_hypervisor_netdev{interface=\"a\\\"b\\n\",item=\"recv_bytes\"} 18446744073709551615\n"
        );
        assert!(compose("up 1\n", Vec::new()).is_empty());
    }
}
