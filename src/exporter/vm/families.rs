//! The families about a sandbox's virtual machine, `kata_sandbox_*`. Kata's own pages have none that start so.
//! docs/vm-cost.md says what each figure means, and what it costs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use promtext::{FamilyWriter, Kind, Value, Writer};
use shimstat::node::hypervisor::VirtualMachine;
use shimstat::node::processes::{
    GuestMemory, ProcessIo, SandboxMemory, Thread, ThreadRole, ThreadTimes, VmUsage,
};
use shimstat::node::{HostProcesses, Part};

/// What a scrape knows of a virtual machine.
pub struct VmRow<'a> {
    /// The name of the runtime class's handler, where the manager says so.
    pub handler: Option<&'a str>,
    pub machine: &'a VirtualMachine,
    pub processes: &'a [HostProcesses],
    pub usage: &'a VmUsage,
    /// The memory in parts that add up, and how old it is.
    pub memory: (&'a SandboxMemory, Duration),
    pub roles: Option<&'a BTreeMap<&'static str, ThreadTimes>>,
    pub overhead_cpu: Option<Duration>,
    pub overhead_memory: Option<u64>,
}

/// A family, and where its samples come from.
struct VmFamily {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    write: fn(&VmRow<'_>, &mut FamilyWriter<'_>),
}

/// Says type and help of every family.
pub fn describe(writer: &mut Writer) {
    for family in &FAMILIES {
        writer.family(family.name, family.kind, family.help);
    }
}

/// The samples, without type and help.
pub fn text(row: &VmRow<'_>) -> Vec<u8> {
    let mut writer = Writer::default();
    for family in &FAMILIES {
        (family.write)(row, &mut writer.samples(family.name));
    }
    writer.into_text()
}

const fn counter(
    name: &'static str,
    help: &'static str,
    write: fn(&VmRow<'_>, &mut FamilyWriter<'_>),
) -> VmFamily {
    VmFamily {
        name,
        kind: Kind::Counter,
        help,
        write,
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    write: fn(&VmRow<'_>, &mut FamilyWriter<'_>),
) -> VmFamily {
    VmFamily {
        name,
        kind: Kind::Gauge,
        help,
        write,
    }
}

static FAMILIES: [VmFamily; 23] = [
    counter(
        "kata_sandbox_cgroup_cpu_seconds_total",
        "CPU time of all that was ever in the sandbox's cgroups on the host.",
        |row, to| one(to, row.usage.cgroup.and_then(|cgroup| cgroup.cpu).map(seconds)),
    ),
    gauge(
        "kata_sandbox_cgroup_memory_anonymous_bytes",
        "Anonymous memory in the sandbox's cgroups.",
        |row, to| one(to, row.usage.cgroup.and_then(|cgroup| cgroup.anonymous)),
    ),
    gauge(
        "kata_sandbox_cgroup_memory_bytes",
        "Memory charged to the sandbox's cgroups on the host, page cache included.",
        |row, to| one(to, row.usage.cgroup.and_then(|cgroup| cgroup.memory)),
    ),
    gauge(
        "kata_sandbox_cgroup_memory_file_bytes",
        "Page cache in the sandbox's cgroups, shared memory included.",
        |row, to| one(to, row.usage.cgroup.and_then(|cgroup| cgroup.file)),
    ),
    gauge(
        "kata_sandbox_cgroup_memory_shared_bytes",
        "Shared memory in the sandbox's cgroups: a guest's, where virtiofsd shares files with it.",
        |row, to| one(to, row.usage.cgroup.and_then(|cgroup| cgroup.shared)),
    ),
    gauge(
        "kata_sandbox_configured_memory_bytes",
        "Memory that the guest was given, as its shim noted.",
        |row, to| one(to, row.machine.configured_memory),
    ),
    counter(
        "kata_sandbox_disk_read_bytes_total",
        "Bytes that a disk of the host had to fetch, by part of the sandbox.",
        |row, to| disk(row, to, |io| io.read_bytes),
    ),
    counter(
        "kata_sandbox_disk_written_bytes_total",
        "Bytes to be written to a disk of the host, by part of the sandbox.",
        |row, to| disk(row, to, |io| io.write_bytes),
    ),
    gauge(
        "kata_sandbox_info",
        "What the sandbox runs on: runtime class handler, hypervisor, Kata's shim, kind of machine.",
        |row, to| {
            let labels = [
                ("handler", row.handler.unwrap_or_default()),
                (
                    "hypervisor",
                    row.machine.hypervisor.as_deref().unwrap_or_default(),
                ),
                ("machine", row.machine.kind.word().unwrap_or("local")),
                ("shim", row.machine.shim.word()),
            ];
            to.sample(&labels, 1u64);
        },
    ),
    gauge(
        "kata_sandbox_memory_age_seconds",
        "How old kata_sandbox_memory_bytes is: 0, or longer where it takes a walk over the guest's pages.",
        |row, to| one(to, Some(Value::Float(row.memory.1.as_secs_f64().round()))),
    ),
    gauge(
        "kata_sandbox_memory_bytes",
        "Resident memory in parts that add up: the guest's by kind, and each process's own.",
        memory,
    ),
    counter(
        "kata_sandbox_network_dropped_packets_total",
        "Packets dropped between the pod's network and the guest, as the host counts them.",
        |row, to| {
            if let Some(links) = &row.usage.links {
                to.sample(&[("direction", "from_guest")], links.dropped_from_guest());
                to.sample(&[("direction", "to_guest")], links.dropped_to_guest());
            }
        },
    ),
    counter(
        "kata_sandbox_overhead_cpu_seconds_total",
        "CPU time of the sandbox's processes beyond its containers', since the exporter first saw it.",
        |row, to| one(to, row.overhead_cpu.map(seconds)),
    ),
    gauge(
        "kata_sandbox_overhead_memory_bytes",
        "Resident memory of the sandbox's processes beyond its containers'.",
        |row, to| one(to, row.overhead_memory),
    ),
    counter(
        "kata_sandbox_process_cpu_seconds_total",
        "CPU time of the sandbox's processes, by part.",
        |row, to| parts(row, to, |part| Some(seconds(part.cpu()))),
    ),
    gauge(
        "kata_sandbox_process_memory_bytes",
        "Resident memory of the sandbox's processes, by part; virtiofsd's without what it shares.",
        |row, to| parts(row, to, |part| part.memory().map(Value::Count)),
    ),
    counter(
        "kata_sandbox_thread_run_seconds_total",
        "Time that the VMM's threads ran, by role, since the exporter first saw them.",
        |row, to| roles(row, to, |times| Some(seconds(times.run))),
    ),
    counter(
        "kata_sandbox_thread_wait_seconds_total",
        "Time that the VMM's threads waited for a processor, by role, since the exporter first saw them.",
        |row, to| roles(row, to, |times| times.wait.map(seconds)),
    ),
    gauge(
        "kata_sandbox_threads",
        "Threads of the VMM, by role.",
        |row, to| roles(row, to, |times| Some(Value::Count(times.threads as u64))),
    ),
    gauge(
        "kata_sandbox_threads_left_out",
        "Threads of the VMM beyond those that are read.",
        |row, to| {
            let left_out = row.usage.threads.as_ref().map_or(0, |threads| threads.left_out);
            one(to, (left_out > 0).then_some(left_out as u64));
        },
    ),
    gauge(
        "kata_sandbox_vcpus",
        "Threads that are virtual processors of the guest.",
        |row, to| {
            let threads = row.usage.threads.as_ref();
            let vcpus = threads.map(|threads| threads.vcpus().count() as u64);
            // Without any their names are not known, as every machine has some.
            one(to, vcpus.filter(|vcpus| *vcpus > 0));
        },
    ),
    counter(
        "kata_sandbox_vcpu_run_seconds_total",
        "Time that a virtual processor ran.",
        |row, to| vcpus(row, to, |thread| Some(thread.run)),
    ),
    counter(
        "kata_sandbox_vcpu_wait_seconds_total",
        "Time that a virtual processor waited for one of the host's: what its guest sees as steal time.",
        |row, to| vcpus(row, to, |thread| thread.wait),
    ),
];

fn seconds(time: Duration) -> Value {
    Value::Nanoseconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn one(to: &mut FamilyWriter<'_>, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        to.sample(&[], value);
    }
}

fn part_label(part: Part) -> &'static str {
    match part {
        Part::Vmm => "vmm",
        Part::Vhost => "vhost",
        Part::Virtiofsd => "virtiofsd",
        Part::Shim => "shim",
        Part::ShimAndVmm => "shim_and_vmm",
    }
}

fn parts(row: &VmRow<'_>, to: &mut FamilyWriter<'_>, value: fn(&HostProcesses) -> Option<Value>) {
    for part in row.processes {
        if let Some(value) = value(part) {
            to.sample(&[("part", part_label(part.part))], value);
        }
    }
}

fn disk(row: &VmRow<'_>, to: &mut FamilyWriter<'_>, value: fn(&ProcessIo) -> u64) {
    for (part, io) in &row.usage.disk {
        to.sample(&[("part", part_label(*part))], value(io));
    }
}

fn roles(row: &VmRow<'_>, to: &mut FamilyWriter<'_>, value: fn(&ThreadTimes) -> Option<Value>) {
    for (role, times) in row.roles.into_iter().flatten() {
        if let Some(value) = value(times) {
            to.sample(&[("role", role)], value);
        }
    }
}

fn vcpus(row: &VmRow<'_>, to: &mut FamilyWriter<'_>, value: fn(&Thread) -> Option<Duration>) {
    // A VMM names its threads as it likes: no series may be there twice.
    let mut seen = BTreeSet::new();
    for thread in row.usage.threads.iter().flat_map(|threads| threads.vcpus()) {
        // QEMU does not always name its threads: then the thread's id tells virtual processors apart.
        let vcpu = match thread.role {
            ThreadRole::Vcpu(Some(number)) => number.to_string(),
            _ => format!("thread-{}", thread.tid),
        };
        if let Some(value) = value(thread).filter(|_| !seen.contains(&vcpu)) {
            to.sample(&[("vcpu", &vcpu)], seconds(value));
            seen.insert(vcpu);
        }
    }
}

fn memory(row: &VmRow<'_>, to: &mut FamilyWriter<'_>) {
    let memory = row.memory.0;
    if let Some(GuestMemory {
        anonymous,
        shared,
        huge_pages,
    }) = memory.guest
    {
        to.sample(&[("part", "guest_anonymous")], anonymous);
        to.sample(&[("part", "guest_huge_pages")], huge_pages);
        to.sample(&[("part", "guest_shared")], shared);
    }
    let has_guest_in_it = memory.guest.is_none() && row.machine.kind.shows_memory();
    for (part, own) in &memory.own {
        let label = match part {
            Part::Vmm if has_guest_in_it => "vmm_and_guest",
            Part::ShimAndVmm if has_guest_in_it => "shim_and_vmm_and_guest",
            Part::Vhost => continue, // The kernel's threads have no memory of their own.
            part => part_label(*part),
        };
        if let Some(own) = own {
            to.sample(&[("part", label)], *own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use promtext::{Filter, Merge, Page, Relabel};
    use shimstat::node::hypervisor::{CgroupPaths, KataShim};
    use shimstat::node::processes::Threads;
    use shimstat::node::{GuestProtection, MachineKind, ProcessMemory, ProcessUsage};

    fn vcpu(tid: u32, number: Option<u32>, run: u64) -> Thread {
        Thread {
            tid,
            name: "CPU".into(),
            role: ThreadRole::Vcpu(number),
            started: 7,
            run: Duration::from_secs(run),
            wait: None,
        }
    }

    /// What is told of a VMM with 600 MiB resident, on a machine of this kind.
    fn page(kind: MachineKind, guest: Option<GuestMemory>, threads: Vec<Thread>) -> String {
        let machine = VirtualMachine {
            shim: KataShim::Rust,
            hypervisor: Some("a\"b".into()),
            kind,
            vmm_pid: None,
            virtiofsd_pid: None,
            configured_memory: None,
            cgroups: CgroupPaths::default(),
        };
        let vmm = ProcessUsage {
            pid: 20,
            name: "qemu".into(),
            parent: 1,
            started: 7,
            threads: 1,
            cpu: Duration::from_millis(7_010),
            memory: ProcessMemory {
                rss: Some(600 << 20),
                ..ProcessMemory::default()
            },
        };
        let usage = VmUsage {
            threads: Some(Threads { threads, left_out: 3 }),
            memory: SandboxMemory {
                guest,
                own: vec![(Part::Vmm, Some(7)), (Part::Shim, None)],
            },
            cgroup: None,
            disk: Vec::new(),
            links: None,
        };
        let row = VmRow {
            handler: None,
            machine: &machine,
            processes: &[HostProcesses {
                part: Part::Vmm,
                processes: vec![vmm],
            }],
            memory: (&usage.memory, Duration::from_millis(89_600)),
            usage: &usage,
            roles: None,
            overhead_cpu: None,
            overhead_memory: None,
        };
        let mut types = Writer::default();
        describe(&mut types);
        let read = |text| Page::read(text, Relabel::default()).unwrap();
        let pages = vec![read(types.into_text()), read(text(&row))];
        let page = String::from_utf8(Merge::new(pages, &Filter::default()).into_bytes()).unwrap();
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn what_is_not_known_is_not_there() {
        let threads = vec![vcpu(21, Some(0), 5), vcpu(22, Some(0), 9), vcpu(23, None, 6)];
        assert_eq!(
            page(MachineKind::Local, None, threads),
            "kata_sandbox_info{handler=\"\",hypervisor=\"a\\\"b\",machine=\"local\",shim=\"rust\"} 1\n\
             kata_sandbox_memory_age_seconds 90\n\
             kata_sandbox_memory_bytes{part=\"vmm_and_guest\"} 7\n\
             kata_sandbox_process_cpu_seconds_total{part=\"vmm\"} 7.01\n\
             kata_sandbox_process_memory_bytes{part=\"vmm\"} 629145600\n\
             kata_sandbox_threads_left_out 3\n\
             kata_sandbox_vcpu_run_seconds_total{vcpu=\"0\"} 5\n\
             kata_sandbox_vcpu_run_seconds_total{vcpu=\"thread-23\"} 6\n\
             kata_sandbox_vcpus 3\n"
        );
    }

    #[test]
    fn memory_that_is_hidden_from_the_host_is_in_no_part() {
        let tdx = MachineKind::Confidential(Some(GuestProtection::Tdx));
        let hidden = page(tdx, None, Vec::new());
        assert!(
            hidden.contains("kata_sandbox_memory_bytes{part=\"vmm\"} 7\n"),
            "{hidden}"
        );
        assert!(
            hidden.contains("machine=\"tdx\"") && !hidden.contains("guest"),
            "{hidden}"
        );
        let shown = page(MachineKind::Local, Some(GuestMemory::default()), Vec::new());
        assert!(shown.contains("{part=\"guest_huge_pages\"} 0\n"), "{shown}");
        assert!(shown.contains("{part=\"vmm\"} 7\n"), "{shown}");
    }
}
