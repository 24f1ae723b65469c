//! The summary: what each part of a sandbox uses, and how much of that is not its containers'. No I/O.

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use shimstat::node::hypervisor::{KataShim, VirtualMachine};
use shimstat::node::{Container, HostProcesses, Part, Role};
use shimstat::rates::Rates;
use shimstat::survey::{AskError, NotRunning, Sample};

use super::guest::{self, Measured};
use super::look::Look;
use super::vm::{Vm, part_name};
use crate::guest_side::GuestSide;
use crate::readings::Readings;

/// One line of the summary. `None`: not measured. As JSON, its keys are in alphabetical order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Per cent of one processor between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Processor time since it started, in seconds.
    #[serde(rename = "cpu_seconds", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// In bytes.
    #[serde(rename = "memory_bytes", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The bytes that there are, if that is known.
    #[serde(rename = "memory_of_bytes", skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    pub name: String,
    /// Where the numbers come from.
    pub source: String,
}

/// What a sandbox costs. As JSON, its keys are in alphabetical order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The agent in the guest, where it can be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<GuestSide>,
    /// Its containers, as counted in the guest.
    pub containers: Vec<Entry>,
    /// The guest as a machine. The VMM's usage includes it.
    pub guest: Vec<Entry>,
    /// Its processes on the host.
    pub host: Vec<Entry>,
    /// Untrusted text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// What is not known, and why.
    pub missing: Vec<String>,
    /// What the host's processes use beyond the containers in the guest, if all of that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead: Option<Entry>,
    /// `namespace/name` of its pod. Untrusted text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    pub sandbox: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shim_name")]
    pub shim: Option<KataShim>,
    /// What its virtual machine uses of the host, where it is on this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<Vm>,
    /// Whether rates were asked for.
    #[serde(skip)]
    pub rates: bool,
}

fn shim_name<S: Serializer>(shim: &Option<KataShim>, serializer: S) -> Result<S::Ok, S::Error> {
    let name = shim.map(KataShim::word);
    name.serialize(serializer)
}

impl Summary {
    /// Summarizes a sandbox; with an earlier look, also what was used in between.
    pub fn new(sandbox: &str, now: &Look, before: Option<&Look>) -> Self {
        let mut missing = Vec::new();
        let host = host(now, before, &mut missing);
        let containers = containers(now, before, &mut missing);
        let overhead = overhead(&host, &containers, now, &mut missing);
        let guest = in_guest(now, before, &mut missing);
        let machine = now.machine.as_ref();
        let own = now.containers.first().map(|(container, _)| container);
        Self {
            agent: now.guest.as_ref().map(|facts| {
                let readings = now.scraped.as_ref().ok().map(|(_, readings)| readings);
                GuestSide::new(facts, readings)
            }),
            sandbox: sandbox.to_string(),
            pod: own.and_then(|container| container.names().pod()),
            shim: machine.map(|machine| machine.shim),
            hypervisor: machine.and_then(|machine| machine.hypervisor.clone()),
            host,
            containers,
            overhead,
            guest,
            missing,
            vm: now
                .vm
                .as_ref()
                .map(|vm| Vm::new(vm, before.and_then(|before| before.vm.as_ref()))),
            rates: before.is_some(),
        }
    }
}

/// The processes on the host, from `/proc` or, failing that, from the shim's families.
fn host(now: &Look, before: Option<&Look>, missing: &mut Vec<String>) -> Vec<Entry> {
    let (taken, processes) = &now.processes;
    let kind = now
        .machine
        .as_ref()
        .map(|machine| machine.kind)
        .unwrap_or_default();
    let mut entries: Vec<(Part, Entry)> = processes
        .iter()
        .map(|part| {
            let percent = before.and_then(|before| {
                let (then, old) = &before.processes;
                let old = old.iter().find(|old| old.part == part.part)?;
                part.cpu_percent_since(old, taken.saturating_duration_since(*then))
            });
            (part.part, from_proc(part, percent))
        })
        .collect();
    for (part, name) in [(Part::Vmm, "VMM"), (Part::Shim, "shim")] {
        let known = entries
            .iter()
            .any(|(known, _)| *known == part || *known == Part::ShimAndVmm);
        if known {
            continue;
        }
        if part == Part::Vmm && !kind.is_local() {
            // The shim's families about a VMM are then about itself.
            missing.push("VMM: the virtual machine is not on this host".to_string());
            continue;
        }
        match from_families(now, before, name, |readings| guest::host_part(readings, part)) {
            Some(entry) => entries.push((part, entry)),
            None => missing.push(format!(
                "{name}: its process is not known, and no metric family is about it"
            )),
        }
    }
    let noted = now.machine.as_ref().and_then(|machine| machine.virtiofsd_pid);
    if noted.is_some() && !entries.iter().any(|(part, _)| *part == Part::Virtiofsd) {
        missing.push(
            "virtiofsd: its process is gone, and Kata's metrics are not about the one that does the work"
                .into(),
        );
    }
    let order = [
        Part::Vmm,
        Part::ShimAndVmm,
        Part::Vhost,
        Part::Virtiofsd,
        Part::Shim,
    ];
    entries.sort_by_key(|(part, _)| order.iter().position(|one| one == part));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn from_proc(processes: &HostProcesses, cpu_percent: Option<f64>) -> Entry {
    let name = part_name(processes.part);
    let pids: Vec<_> = processes
        .processes
        .iter()
        .map(|process| process.pid.to_string())
        .collect();
    let pids = match pids.as_slice() {
        [one] => one.clone(),
        several => format!("{{{}}}", several.join(",")),
    };
    Entry {
        name: name.to_string(),
        cpu: Some(processes.cpu().as_secs_f64()),
        cpu_percent,
        memory: processes.memory(),
        of: None,
        source: format!("/proc/{pids}/stat, /proc/{pids}/status"),
    }
}

/// An entry from the sandbox's own metrics.
fn from_families(
    now: &Look,
    before: Option<&Look>,
    name: &str,
    read: impl Fn(&Readings) -> Option<Measured>,
) -> Option<Entry> {
    let measured = |look: &Look| {
        let (taken, readings) = look.scraped.as_ref().ok()?;
        Some((*taken, read(readings)?))
    };
    let (taken, new) = measured(now)?;
    let cpu_percent = before
        .and_then(measured)
        .and_then(|(then, old)| percent(new.cpu? - old.cpu?, then, taken));
    Some(Entry {
        name: name.to_string(),
        cpu: new.cpu,
        cpu_percent,
        memory: new.memory,
        of: new.of,
        source: new.source.to_string(),
    })
}

/// Seconds of processor time in a span, as a percentage; `None` for a counter that fell.
fn percent(seconds: f64, then: Instant, now: Instant) -> Option<f64> {
    let span: Duration = now.saturating_duration_since(then);
    (seconds >= 0.0 && !span.is_zero()).then(|| seconds / span.as_secs_f64() * 100.0)
}

fn containers(now: &Look, before: Option<&Look>, missing: &mut Vec<String>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (container, answer) in &now.containers {
        let name = match (container.role(), &container.names().container) {
            (Role::Sandbox, _) => "sandbox".to_string(),
            (_, Some(name)) => name.clone(),
            (_, None) => container.id().to_string(),
        };
        match answer {
            Ok(sample) => entries.push(from_stats(name, sample, earlier(before, container))),
            // One that has stopped uses nothing.
            Err(AskError::NotRunning(NotRunning::Stopped(_) | NotRunning::Unknown(_))) => {}
            Err(error) => missing.push(format!("container {name}: {error}")),
        }
    }
    missing.extend(now.unread.iter().cloned());
    if now.containers.is_empty() {
        missing.push("containers: the sandbox is not in containerd's state directory".to_string());
    }
    entries
}

fn earlier<'a>(before: Option<&'a Look>, container: &Container) -> Option<&'a Sample> {
    let same = |(other, _): &&(std::sync::Arc<Container>, _)| other.bundle == container.bundle;
    before?.containers.iter().find(same)?.1.as_ref().ok()
}

fn from_stats(name: String, sample: &Sample, before: Option<&Sample>) -> Entry {
    let stats = &sample.stats;
    Entry {
        name,
        cpu: stats.cpu.usage.total.map(|nanos| nanos as f64 / 1e9),
        cpu_percent: before.and_then(|before| Rates::between(before, sample).cpu_percent),
        memory: stats.memory.usage.usage,
        of: stats.memory.limit(),
        source: "Stats".to_string(),
    }
}

/// What the host's processes use beyond the containers. Each number needs that of all the others.
fn overhead(host: &[Entry], containers: &[Entry], now: &Look, missing: &mut Vec<String>) -> Option<Entry> {
    if !missing.is_empty() {
        missing.push("overhead: it needs the above".to_string());
        return None;
    }
    if !is_virtual(now.machine.as_ref(), host) {
        missing.push("overhead: the containers are not known to run in a virtual machine".to_string());
        return None;
    }
    let difference = |part: fn(&Entry) -> Option<f64>| {
        let sum = |entries: &[Entry]| entries.iter().map(part).sum::<Option<f64>>();
        Some(sum(host)? - sum(containers)?)
    };
    let mut kept = |what: &str, difference: Option<f64>| match difference {
        // They are read one after the other, and the kernel counts in ticks.
        Some(left) if left < 0.0 => {
            missing.push(format!(
                "overhead: the containers report more {what} than the host's processes use"
            ));
            None
        }
        left => left,
    };
    let cpu = kept("processor time", difference(|entry| entry.cpu));
    let memory = if now
        .machine
        .as_ref()
        .is_some_and(|machine| !machine.kind.shows_memory())
    {
        missing.push("overhead: the guest's memory is hidden from the host's processes".to_string());
        None
    } else {
        kept(
            "memory",
            difference(|entry| entry.memory.map(|bytes| bytes as f64)),
        )
    };
    let cpu_percent = difference(|entry| entry.cpu_percent).map(|percent| percent.max(0.0));
    Some(Entry {
        name: "overhead".to_string(),
        cpu,
        cpu_percent,
        memory: memory.map(|bytes| bytes as u64),
        of: None,
        source: "the processes on the host minus the containers".to_string(),
    })
}

/// Whether a process on the host contains the containers.
fn is_virtual(machine: Option<&VirtualMachine>, host: &[Entry]) -> bool {
    machine.is_some() || host.iter().any(|entry| entry.name == "VMM")
}

fn in_guest(now: &Look, before: Option<&Look>, missing: &mut Vec<String>) -> Vec<Entry> {
    let entries: Vec<_> = [
        from_families(now, before, "guest", guest::guest),
        from_families(now, before, "agent in it", guest::agent),
    ]
    .into_iter()
    .flatten()
    .collect();
    match &now.scraped {
        Err(why) => missing.push(format!("guest: {why}")),
        Ok((_, readings)) if !readings.left_out.is_empty() => {
            missing.extend(readings.left_out.iter().map(|what| format!("guest: {what}")));
        }
        Ok(_) if entries.is_empty() => {
            missing.push("guest: its metrics are missing from the answer; it may be hung".to_string());
        }
        Ok(_) => {}
    }
    entries
}

#[cfg(test)]
mod tests;
