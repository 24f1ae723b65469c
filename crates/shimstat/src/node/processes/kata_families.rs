//! Families of metrics that Kata's Go shim makes of `/proc` for its processes, made here: for a sandbox whose shim
//! must not be asked, so that the same dashboards show it.
//!
//! Names, help texts, labels and units are those of Kata 4.1.0 (src/runtime/virtcontainers/sandbox_metrics.go,
//! pkg/containerd-shim-v2/shim_metrics.go, pkg/utils/metrics.go). Kata's Rust shim has `kata_shim_*` under the same
//! names with other units and items.
//!
//! Not made: `vmpmd` of `*_proc_status`, which no kernel since 4.15 tells and Kata shows as 0;
//! `kata_shim_pod_overhead_*`, for which the guest must be asked (see [`CpuOverhead`](super::CpuOverhead)); histograms of
//! what the shim itself did; `go_*` and `process_*`.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use super::host::{HostProcesses, Part};
use super::io::ProcessIo;
use super::links::interface_rows;
use super::usage::ProcessUsage;
use crate::node::network::NetworkNamespace;
use crate::node::proc_fs::{Roots, Stat, field};

/// How many open files are counted one by one. On Linux 6.2 and later the kernel gives the number.
const MAX_FILES: usize = 65_536;

/// A family of metrics, with its samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFamily {
    /// The family's name, as Kata's shims export it.
    pub name: &'static str,
    /// Kata's help text for it.
    pub help: &'static str,
    /// In the order of their labels.
    pub samples: Vec<HostSample>,
}

/// A sample of a [`HostFamily`]. All values are whole numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSample {
    /// Names and values. An interface's name is untrusted text.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// In the unit that Kata exports, which the family's name or help says.
    pub value: u64,
}

impl HostFamily {
    /// Kata declares all of them as gauges, though most only grow.
    pub const TYPE: &'static str = "gauge";
}

/// The families of one process of a sandbox. The help texts of its I/O and open files differ from the others' by more
/// than the process's name.
struct Names {
    fds: (&'static str, &'static str),
    io_stat: (&'static str, &'static str),
    proc_stat: (&'static str, &'static str),
    proc_status: (&'static str, &'static str),
    threads: (&'static str, &'static str),
}

const HYPERVISOR: Names = Names {
    fds: ("kata_hypervisor_fds", "Open FDs for hypervisor."),
    io_stat: ("kata_hypervisor_io_stat", "Process IO statistics."),
    proc_stat: ("kata_hypervisor_proc_stat", "Hypervisor process statistics."),
    proc_status: ("kata_hypervisor_proc_status", "Hypervisor process status."),
    threads: ("kata_hypervisor_threads", "Hypervisor process threads."),
};

const NETDEV: (&str, &str) = ("kata_hypervisor_netdev", "Net devices statistics.");

const SHIM: Names = Names {
    fds: ("kata_shim_fds", "Kata containerd shim v2 open FDs."),
    io_stat: (
        "kata_shim_io_stat",
        "Kata containerd shim v2 process IO statistics.",
    ),
    proc_stat: (
        "kata_shim_proc_stat",
        "Kata containerd shim v2 process statistics.",
    ),
    proc_status: ("kata_shim_proc_status", "Kata containerd shim v2 process status."),
    threads: ("kata_shim_threads", "Kata containerd shim v2 process threads."),
};

const VIRTIOFSD: Names = Names {
    fds: ("kata_virtiofsd_fds", "Open FDs for virtiofsd."),
    io_stat: ("kata_virtiofsd_io_stat", "Process IO statistics."),
    proc_stat: ("kata_virtiofsd_proc_stat", "Virtiofsd process statistics."),
    proc_status: ("kata_virtiofsd_proc_status", "Virtiofsd process status."),
    threads: ("kata_virtiofsd_threads", "Virtiofsd process threads."),
};

/// The items of `*_proc_status`, and the kernel's names for them. Memory is in bytes.
const STATUS_ITEMS: [(&str, &str); 18] = [
    ("hugetlbpages", "HugetlbPages"),
    ("nonvoluntary_ctxt_switches", "nonvoluntary_ctxt_switches"),
    ("rssanon", "RssAnon"),
    ("rssfile", "RssFile"),
    ("rssshmem", "RssShmem"),
    ("vmdata", "VmData"),
    ("vmexe", "VmExe"),
    ("vmhwm", "VmHWM"),
    ("vmlck", "VmLck"),
    ("vmlib", "VmLib"),
    ("vmpeak", "VmPeak"),
    ("vmpin", "VmPin"),
    ("vmpte", "VmPTE"),
    ("vmrss", "VmRSS"),
    ("vmsize", "VmSize"),
    ("vmstk", "VmStk"),
    ("vmswap", "VmSwap"),
    ("voluntary_ctxt_switches", "voluntary_ctxt_switches"),
];

/// The items of `kata_hypervisor_netdev`, in the order of `/proc/<pid>/net/dev`.
const NETDEV_ITEMS: [&str; 16] = [
    "recv_bytes",
    "recv_packets",
    "recv_errs",
    "recv_drop",
    "recv_fifo",
    "recv_frame",
    "recv_compressed",
    "recv_multicast",
    "sent_bytes",
    "sent_packets",
    "sent_errs",
    "sent_drop",
    "sent_fifo",
    "sent_colls",
    "sent_carrier",
    "sent_compressed",
];

/// Kata's families about the processes of a sandbox, sorted by name. What cannot be read is left out, and so is a
/// family of which nothing can.
///
/// `task_pid` is the pid that the sandbox's shim gives for its task (`State`); it leads to the pod's network, unless
/// that is the host's. Of two
/// virtiofsd the families are of the first, as Kata's are, which only waits for the other: see
/// [`HostProcesses`] for both. Where the shim and the VMM are one process, it is told of as the shim.
pub fn kata_families(processes: &[HostProcesses], task_pid: Option<u32>) -> Vec<HostFamily> {
    let network = task_pid.and_then(|pid| Some((pid, NetworkNamespace::of_task(pid)?)));
    let mut families = kata_families_in(Roots::host(), processes, network.map(|(pid, _)| pid));
    // Where the task has ended meanwhile, its pid may be another's.
    if network.is_some_and(|(pid, namespace)| !namespace.holds(pid)) {
        families.retain(|family| family.name != NETDEV.0);
    }
    families
}

fn kata_families_in(roots: Roots<'_>, processes: &[HostProcesses], task_pid: Option<u32>) -> Vec<HostFamily> {
    let mut families = Vec::new();
    for part in processes {
        let names = match part.part {
            Part::Vmm => &HYPERVISOR,
            Part::Virtiofsd => &VIRTIOFSD,
            Part::Shim | Part::ShimAndVmm => &SHIM,
            Part::Vhost => continue,
        };
        if let Some(process) = part.processes.first() {
            add_process(roots, process, names, &mut families);
        }
        if matches!(part.part, Part::Vmm | Part::ShimAndVmm) {
            let (name, help) = NETDEV;
            let samples = task_pid.and_then(|pid| netdev(roots, pid)).unwrap_or_default();
            families.push(HostFamily { name, help, samples });
        }
    }
    families.retain(|family| !family.samples.is_empty());
    families.sort_by_key(|family| family.name);
    families
}

fn add_process(roots: Roots<'_>, process: &ProcessUsage, names: &Names, families: &mut Vec<HostFamily>) {
    let pid = process.pid;
    let Some(stat) = roots
        .parse(pid, "stat", Stat::parse)
        .ok()
        // Its pid may be another's by now.
        .filter(|stat| stat.started == process.started)
    else {
        return;
    };
    let mut add = |(name, help), samples| families.push(HostFamily { name, help, samples });
    let alone = |value: Option<u64>| {
        let sample = |value| HostSample {
            labels: Vec::new(),
            value,
        };
        value.map(sample).into_iter().collect()
    };
    add(names.fds, alone(open_files(roots, pid)));
    add(names.threads, alone(Some(stat.threads)));
    let times = [
        ("cstime", Some(stat.children_system)),
        ("cutime", Some(stat.children_user)),
        ("stime", Some(stat.system)),
        ("utime", Some(stat.user)),
    ];
    add(names.proc_stat, items(times));
    let status = |text: &str| Some(STATUS_ITEMS.map(|(item, key)| (item, field(text, key))));
    if let Ok(values) = roots.parse(pid, "status", status) {
        add(names.proc_status, items(values));
    }
    if let Ok(io) = ProcessIo::read_in(roots, pid) {
        let counters = [
            ("cancelledwritebytes", Some(io.cancelled_write_bytes)),
            ("rchar", Some(io.read_chars)),
            ("readbytes", Some(io.read_bytes)),
            ("syscr", Some(io.read_calls)),
            ("syscw", Some(io.write_calls)),
            ("wchar", Some(io.write_chars)),
            ("writebytes", Some(io.write_bytes)),
        ];
        add(names.io_stat, items(counters));
    }
}

fn items<const N: usize>(values: [(&'static str, Option<u64>); N]) -> Vec<HostSample> {
    let sample = |(item, value): (&'static str, Option<u64>)| {
        Some(HostSample {
            labels: vec![("item", item.into())],
            value: value?,
        })
    };
    values.into_iter().filter_map(sample).collect()
}

fn netdev(roots: Roots<'_>, pid: u32) -> Option<Vec<HostSample>> {
    let mut samples = Vec::new();
    for (interface, counters) in interface_rows(roots, pid)? {
        samples.extend(NETDEV_ITEMS.iter().zip(counters).map(|(item, value)| HostSample {
            labels: vec![("interface", interface.clone().into()), ("item", (*item).into())],
            value,
        }));
    }
    samples.sort_by(|a, b| a.labels.cmp(&b.labels));
    Some(samples)
}

/// The number of files that a process has open; virtiofsd can have a million.
fn open_files(roots: Roots<'_>, pid: u32) -> Option<u64> {
    let directory = roots.path(pid, "fd");
    // Since Linux 6.2 the kernel gives the number as the directory's size; before, and so on a disk, it is another.
    let size = fs::metadata(&directory).ok()?.len();
    if size > 0 && roots.proc == Path::new("/proc") {
        return Some(size);
    }
    let count = fs::read_dir(&directory).ok()?.take(MAX_FILES + 1).count();
    u64::try_from(count).ok().filter(|_| count <= MAX_FILES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::proc_fs::testing::Tree;

    /// Of the page of a pod under Kata 4.1.0's Go shim, the families about its processes.
    const PAGE: &str = include_str!("../../../tests/fixtures/kata-4.1-go/host-families.txt");

    /// The files of those processes, made from the page: shim 14340, virtiofsd 14366, QEMU 14367.
    macro_rules! recorded {
        ($file:literal) => {
            include_str!(concat!("../../../tests/fixtures/kata-4.1-go/proc/", $file))
        };
    }

    fn recorded() -> Tree {
        let tree = Tree::new();
        tree.file(14340, "stat", recorded!("14340/stat"))
            .file(14340, "status", recorded!("14340/status"))
            .file(14340, "io", recorded!("14340/io"))
            .file(14366, "stat", recorded!("14366/stat"))
            .file(14366, "status", recorded!("14366/status"))
            .file(14366, "io", recorded!("14366/io"))
            .file(14367, "stat", recorded!("14367/stat"))
            .file(14367, "status", recorded!("14367/status"))
            .file(14367, "io", recorded!("14367/io"))
            .file(14367, "net/dev", recorded!("14367/net/dev"));
        for (pid, open) in [(14340, 35), (14366, 8), (14367, 106)] {
            for fd in 0..open {
                tree.file(pid, &format!("fd/{fd}"), "");
            }
        }
        tree
    }

    fn part(tree: &Tree, part: Part, pid: u32) -> HostProcesses {
        HostProcesses {
            part,
            processes: vec![ProcessUsage::read_in(tree.roots(), pid).unwrap()],
        }
    }

    fn sandbox(tree: &Tree) -> [HostProcesses; 3] {
        [
            part(tree, Part::Vmm, 14367),
            part(tree, Part::Virtiofsd, 14366),
            part(tree, Part::Shim, 14340),
        ]
    }

    /// The families as a page has them, their values apart: those of a page may have an exponent.
    fn printed(families: &[HostFamily]) -> (Vec<String>, BTreeMap<String, f64>) {
        let (mut comments, mut samples) = (Vec::new(), BTreeMap::new());
        for family in families {
            comments.push(format!("# HELP {} {}", family.name, family.help));
            comments.push(format!("# TYPE {} {}", family.name, HostFamily::TYPE));
            for sample in &family.samples {
                let labels: Vec<_> = sample
                    .labels
                    .iter()
                    .map(|(name, value)| format!("{name}=\"{value}\""))
                    .collect();
                let labels = if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{}}}", labels.join(","))
                };
                let twice = samples.insert(format!("{}{labels}", family.name), sample.value as f64);
                assert_eq!(twice, None, "{}{labels}", family.name);
            }
        }
        (comments, samples)
    }

    #[test]
    fn what_the_go_shim_shows_of_its_processes_in_full() {
        let tree = recorded();
        let (comments, samples) = printed(&kata_families_in(tree.roots(), &sandbox(&tree), Some(14367)));
        let (expected_comments, lines): (Vec<&str>, Vec<&str>) =
            PAGE.lines().partition(|line| line.starts_with('#'));
        assert_eq!(comments, expected_comments);
        let expected: BTreeMap<String, f64> = lines
            .iter()
            .filter_map(|line| line.rsplit_once(' '))
            // No kernel tells it any more.
            .filter(|(series, _)| !series.contains("\"vmpmd\""))
            .map(|(series, value)| (series.to_string(), value.parse().unwrap()))
            .collect();
        assert_eq!(expected.len(), 176 - 32 - 3, "the page was read");
        assert_eq!(samples, expected);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let tree = recorded();
        let sandbox = sandbox(&tree);
        let names = |families: &[HostFamily]| families.iter().map(|family| family.name).collect::<Vec<_>>();
        std::fs::remove_file(tree.roots().path(14367, "io")).unwrap();
        std::fs::remove_dir_all(tree.roots().path(14367, "fd")).unwrap();
        tree.file(14367, "status", "Name:\tqemu-system-x86\nVmPTE:\t 7 kB\n");
        let families = kata_families_in(tree.roots(), &sandbox[..1], None);
        assert_eq!(
            names(&families),
            [
                "kata_hypervisor_proc_stat",
                "kata_hypervisor_proc_status",
                "kata_hypervisor_threads"
            ]
        );
        let pte = HostSample {
            labels: vec![("item", "vmpte".into())],
            value: 7168,
        };
        assert_eq!(families[1].samples, [pte]);

        let stat = recorded!("14367/stat").replace(" 4711 ", " 4712 ");
        tree.file(14367, "stat", &stat);
        assert_eq!(
            kata_families_in(tree.roots(), &sandbox[..1], None),
            [],
            "another process with its pid"
        );
        assert_eq!(kata_families_in(tree.roots(), &[], Some(14367)), []);
    }

    #[test]
    fn one_process_that_is_shim_and_vmm_counts_once() {
        let tree = recorded();
        let both = [part(&tree, Part::ShimAndVmm, 14340)];
        let families = kata_families_in(tree.roots(), &both, Some(14367));
        let hypervisors: Vec<_> = families
            .iter()
            .filter(|family| family.name.contains("hypervisor"))
            .collect();
        assert_eq!(
            hypervisors.iter().map(|family| family.name).collect::<Vec<_>>(),
            ["kata_hypervisor_netdev"]
        );
        assert_eq!(families.len(), 6);
    }

    #[test]
    fn our_own_open_files() {
        let count = || open_files(Roots::host(), std::process::id()).unwrap();
        let before = count();
        let files: Vec<_> = (0..20)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        assert!(count() >= before + 20 && before >= 3);
        drop(files);
    }
}
