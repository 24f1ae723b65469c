//! What the virtual machine uses of the host, beyond what its processes use as wholes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use shimstat::node::cgroup::CgroupMounts;
use shimstat::node::hypervisor::VirtualMachine;
use shimstat::node::processes::{SandboxMemory, Thread, ThreadRole, Threads, VmUsage, vmm};
use shimstat::node::{HostProcesses, Part};

use crate::show::table::{Align, Table};
use crate::show::units;

/// With more virtual processors than this, they are one line of the table.
const MAX_VCPU_LINES: usize = 16;

/// A VMM with more resident memory is not walked: the kernel takes up to 40 ms for each GiB.
const MOST_RESIDENT: u64 = 64 << 30;

/// What a virtual machine uses. As JSON, its keys are in alphabetical order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vm {
    /// What the kernel counts for the cgroups that the shim made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<Cgroups>,
    #[serde(rename = "configured_memory_bytes", skip_serializing_if = "Option::is_none")]
    pub configured_memory: Option<u64>,
    pub disk: Vec<Disk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_packets: Option<Dropped>,
    /// In parts that add up.
    pub memory: Vec<Memory>,
    pub threads: Vec<ThreadLine>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cgroups {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disk {
    pub name: &'static str,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dropped {
    pub from_guest: u64,
    pub to_guest: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memory {
    pub bytes: u64,
    pub name: &'static str,
}

/// A virtual processor, or all other threads of a role.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThreadLine {
    pub count: usize,
    pub name: String,
    /// Between two looks, in per cent of one processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_percent: Option<f64>,
    pub run_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
}

/// What is known of the machine at one look.
pub struct VmLook {
    pub taken: Instant,
    pub usage: VmUsage,
    /// By the mappings of the processes, where the figures of `usage` do not tell the guest's memory apart.
    pub mapped: Option<SandboxMemory>,
    pub shows_memory: bool,
    pub configured_memory: Option<u64>,
}

impl VmLook {
    /// Looks at the machine whose processes these are, and notes of what kind it is; `None` where it has no VMM on this
    /// host.
    ///
    /// Takes up to 40 ms for each GiB where the guest's memory is told by the mappings alone. Nobody else waits meanwhile.
    pub fn take(
        machine: &mut VirtualMachine,
        processes: &[HostProcesses],
        task_pid: Option<u32>,
    ) -> Option<Self> {
        let vmm_pid = vmm(processes)?.processes.first()?.pid;
        machine.kind = machine.kind.with_command_line_of(Some(vmm_pid));
        let taken = Instant::now();
        let usage = VmUsage::read(machine, processes, task_pid, CgroupMounts::host().ok())?;
        let kind = machine.kind;
        let mapped = (usage.memory.guest.is_none() && kind.shows_memory())
            .then(|| SandboxMemory::read_mappings(processes, kind, MOST_RESIDENT).ok())
            .flatten();
        Some(Self {
            taken,
            usage,
            mapped,
            shows_memory: kind.shows_memory(),
            configured_memory: machine.configured_memory,
        })
    }
}

impl Vm {
    /// What a machine uses; with an earlier look, also what its threads did in between.
    pub fn new(now: &VmLook, before: Option<&VmLook>) -> Self {
        let usage = &now.usage;
        let earlier = before.and_then(|before| {
            let threads = before.usage.threads.as_ref()?;
            Some((threads, now.taken.saturating_duration_since(before.taken)))
        });
        Self {
            cgroups: usage.cgroup.map(|cgroup| Cgroups {
                anonymous_bytes: cgroup.anonymous,
                cpu_seconds: cgroup.cpu.map(|time| time.as_secs_f64()),
                file_bytes: cgroup.file,
                memory_bytes: cgroup.memory,
                shared_bytes: cgroup.shared,
            }),
            configured_memory: now.configured_memory,
            disk: usage
                .disk
                .iter()
                .map(|(part, io)| Disk {
                    name: part_name(*part),
                    read_bytes: io.read_bytes,
                    written_bytes: io.write_bytes,
                })
                .collect(),
            dropped_packets: usage.links.as_ref().map(|links| Dropped {
                from_guest: links.dropped_from_guest(),
                to_guest: links.dropped_to_guest(),
            }),
            memory: memory(now.mapped.as_ref().unwrap_or(&usage.memory), now.shows_memory),
            threads: usage
                .threads
                .as_ref()
                .map(|threads| lines(threads, earlier))
                .unwrap_or_default(),
        }
    }

    /// A table of the threads, and a line for each other thing.
    pub fn show(&self, rates: bool) -> String {
        let mut text = String::new();
        if !self.threads.is_empty() {
            text += &format!("\n{}", self.thread_table(rates).lines());
        }
        for (label, line) in [
            ("memory", self.memory_line()),
            ("cgroups", self.cgroups.as_ref().map(cgroup_line)),
            ("disk", self.disk_line()),
            ("dropped packets", self.dropped_packets.as_ref().map(drops_line)),
        ] {
            if let Some(line) = line {
                text += &format!("{label}: {line}\n");
            }
        }
        text
    }

    fn thread_table(&self, rates: bool) -> Table {
        let mut columns = vec![
            ("VMM'S THREADS", Align::Left),
            ("COUNT", Align::Right),
            ("RAN", Align::Right),
            ("WAITED", Align::Right),
        ];
        if rates {
            columns.extend([("RUNNING", Align::Right), ("WAITING", Align::Right)]);
        }
        let mut table = Table::new(columns);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
        for line in &self.threads {
            let mut cells = vec![
                line.name.clone(),
                line.count.to_string(),
                units::cpu_time(line.run_seconds),
                or_dash(line.wait_seconds.map(units::cpu_time)),
            ];
            if rates {
                cells.extend(
                    [line.run_percent, line.wait_percent].map(|percent| or_dash(percent.map(units::percent))),
                );
            }
            table.row(cells);
        }
        table
    }

    fn memory_line(&self) -> Option<String> {
        let parts: Vec<_> = self
            .memory
            .iter()
            .filter(|part| part.bytes > 0)
            .map(|part| format!("{} {}", part.name, units::bytes(part.bytes)))
            .collect();
        let sum = self.memory.iter().map(|part| part.bytes).sum();
        let of = self
            .configured_memory
            .map(|bytes| format!("; the guest was given {}", units::bytes(bytes)));
        (!parts.is_empty()).then(|| {
            format!(
                "{}: {} in all{}",
                parts.join(", "),
                units::bytes(sum),
                of.unwrap_or_default()
            )
        })
    }

    fn disk_line(&self) -> Option<String> {
        let parts: Vec<_> = self
            .disk
            .iter()
            .map(|part| {
                let (read, written) = (units::bytes(part.read_bytes), units::bytes(part.written_bytes));
                format!("{} read {read}, wrote {written}", part.name)
            })
            .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn cgroup_line(cgroups: &Cgroups) -> String {
    let bytes = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", units::bytes(bytes)));
    let parts = [
        bytes("memory", cgroups.memory_bytes),
        bytes("anonymous", cgroups.anonymous_bytes),
        bytes("file", cgroups.file_bytes),
        bytes("of it shared", cgroups.shared_bytes),
        cgroups
            .cpu_seconds
            .map(|seconds| format!("CPU {}", units::cpu_time(seconds))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn drops_line(dropped: &Dropped) -> String {
    format!(
        "{} on the way to the guest, {} from it",
        dropped.to_guest, dropped.from_guest
    )
}

/// What a part of a sandbox is called.
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Vmm => "VMM",
        Part::Vhost => "vhost",
        Part::Virtiofsd => "virtiofsd",
        Part::Shim => "shim",
        Part::ShimAndVmm => "shim and VMM",
    }
}

fn memory(memory: &SandboxMemory, shows_memory: bool) -> Vec<Memory> {
    let mut parts = Vec::new();
    if let Some(guest) = memory.guest {
        parts.extend([
            ("guest (anonymous)", guest.anonymous),
            ("guest (shared)", guest.shared),
            ("guest (huge pages)", guest.huge_pages),
        ]);
    }
    let own = memory.own.iter().filter(|(part, _)| *part != Part::Vhost);
    parts.extend(own.filter_map(|(part, own)| {
        let name = match part {
            Part::Vmm if memory.guest.is_none() && shows_memory => "VMM and guest",
            part => part_name(*part),
        };
        Some((name, (*own)?))
    }));
    let part = |(name, bytes)| Memory { bytes, name };
    parts.into_iter().map(part).collect()
}

/// Every virtual processor, then the other threads by role.
fn lines(threads: &Threads, earlier: Option<(&Threads, Duration)>) -> Vec<ThreadLine> {
    let one_line = threads.vcpus().count() > MAX_VCPU_LINES;
    let mut groups: BTreeMap<(u8, u32), (String, Vec<&Thread>)> = BTreeMap::new();
    for thread in &threads.threads {
        let (key, name) = match thread.role {
            ThreadRole::Vcpu(_) if one_line => ((0, 0), "vCPUs".to_string()),
            ThreadRole::Vcpu(Some(number)) => ((0, number), format!("vCPU {number}")),
            // QEMU does not always name its threads.
            ThreadRole::Vcpu(None) => ((1, thread.tid), format!("vCPU (thread {})", thread.tid)),
            ThreadRole::Io => ((2, 0), "I/O".to_string()),
            ThreadRole::Vhost => ((3, 0), "vhost".to_string()),
            ThreadRole::Main => ((4, 0), "main".to_string()),
            ThreadRole::Other => ((5, 0), "other".to_string()),
        };
        groups.entry(key).or_insert((name, Vec::new())).1.push(thread);
    }
    let line = |(name, group): (String, Vec<&Thread>)| {
        let sum = |time: fn(&Thread) -> Option<Duration>| {
            group.iter().map(|one| time(one)).sum::<Option<Duration>>()
        };
        let share = earlier.and_then(|(before, elapsed)| {
            threads.share_since(before, elapsed, |one| {
                group.iter().any(|other| std::ptr::eq(one, *other))
            })
        });
        ThreadLine {
            count: group.len(),
            run_percent: share.map(|share| share.run),
            run_seconds: sum(|thread| Some(thread.run)).unwrap_or_default().as_secs_f64(),
            wait_percent: share.and_then(|share| share.wait),
            wait_seconds: sum(|thread| thread.wait).map(|time| time.as_secs_f64()),
            name,
        }
    };
    groups.into_values().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shimstat::node::processes::{GuestMemory, HostLinks, ProcessIo, SandboxCgroup};

    fn thread(tid: u32, role: ThreadRole, run: u64, wait: Option<u64>) -> Thread {
        Thread {
            tid,
            name: "x".into(),
            role,
            started: 7,
            run: Duration::from_millis(run),
            wait: wait.map(Duration::from_millis),
        }
    }

    fn look(taken: Instant, threads: Vec<Thread>) -> VmLook {
        VmLook {
            taken,
            usage: VmUsage {
                threads: Some(Threads { threads, left_out: 0 }),
                memory: SandboxMemory {
                    guest: None,
                    own: vec![(Part::Vmm, Some(300 << 20)), (Part::Shim, Some(40 << 20))],
                },
                cgroup: Some(SandboxCgroup {
                    memory: Some(350 << 20),
                    cpu: Some(Duration::from_millis(1500)),
                    ..SandboxCgroup::default()
                }),
                disk: vec![(
                    Part::Virtiofsd,
                    ProcessIo {
                        read_bytes: 3 << 20,
                        write_bytes: 1024,
                        ..ProcessIo::default()
                    },
                )],
                links: Some(HostLinks::default()),
            },
            mapped: None,
            shows_memory: true,
            configured_memory: Some(512 << 20),
        }
    }

    #[test]
    fn threads_by_role_and_everything_else_a_line() {
        use ThreadRole::{Io, Main, Vcpu};
        let start = Instant::now();
        let before = look(
            start,
            vec![
                thread(2, Vcpu(Some(0)), 1000, Some(100)),
                thread(4, Io, 50, Some(5)),
            ],
        );
        let mut now = look(
            start + Duration::from_secs(2),
            vec![
                thread(1, Main, 70, None),
                thread(2, Vcpu(Some(0)), 1500, Some(300)),
                thread(3, Vcpu(Some(1)), 200, Some(2)),
                thread(4, Io, 60, Some(5)),
                thread(5, Io, 10, Some(1)),
            ],
        );
        let text = Vm::new(&now, Some(&before)).show(true);
        assert_eq!(
            text,
            "\nVMM'S THREADS  COUNT    RAN  WAITED  RUNNING  WAITING\n\
             vCPU 0             1  1.50s   0.30s    25.0%    10.0%\n\
             vCPU 1             1  0.20s   0.00s    10.0%     0.1%\n\
             I/O                2  0.07s   0.01s     1.0%     0.1%\n\
             main               1  0.07s       -     3.5%        -\n\
             memory: VMM and guest 300MiB, shim 40MiB: 340MiB in all; the guest was given 512MiB\n\
             cgroups: memory 350MiB, CPU 1.50s\n\
             disk: virtiofsd read 3MiB, wrote 1KiB\n\
             dropped packets: 0 on the way to the guest, 0 from it\n"
        );
        now.mapped = Some(SandboxMemory {
            guest: Some(GuestMemory {
                anonymous: 256 << 20,
                ..GuestMemory::default()
            }),
            own: vec![(Part::Vmm, Some(44 << 20)), (Part::Shim, None)],
        });
        let text = Vm::new(&now, None).show(false);
        assert!(
            text.contains("memory: guest (anonymous) 256MiB, VMM 44MiB: 300MiB in all"),
            "{text}"
        );
        let many = (0..17).map(|n| thread(n, Vcpu(Some(n)), 10, Some(1))).collect();
        let vm = Vm::new(&look(start, many), None);
        assert_eq!((vm.threads.len(), vm.threads[0].count), (1, 17));
    }
}
