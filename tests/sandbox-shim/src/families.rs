//! The page of `/metrics`: the families that Kata serves, under its names, from this machine's `/proc`.
//!
//! Left out is what does not exist here: `go_*` (no Go runtime) and `kata_virtiofsd_*` (no virtiofsd).

use std::{
    collections::{BTreeMap, HashMap},
    process,
    sync::atomic::Ordering,
};

use crate::{
    flavour::Kind,
    monitor::Monitor,
    proc,
    text::{Family, Writer},
};

type Families = Vec<Family>;

/// The page as the sandbox's flavour writes it: sorted by family, but with the Go flavour the guest's
/// families come at the end in an order that changes from one answer to the next.
pub fn page(monitor: &Monitor) -> String {
    let writer = Writer {
        kind: monitor.flavour.kind,
    };
    let mut own: BTreeMap<_, _> = shim(monitor, &writer).into_iter().collect();
    if monitor.flavour.kind == Kind::Go {
        own.extend(go_shim_only(monitor, &writer));
    }
    let mut page = String::new();
    let Some(vmm) = monitor.vmm() else {
        page.extend(own.into_values());
        return page;
    };
    let guest = guest(monitor, &writer, vmm);
    match monitor.flavour.kind {
        Kind::Go => {
            page.extend(own.into_values());
            // HashMap's order is random on purpose, as that of Go's maps is.
            page.extend(guest.into_iter().collect::<HashMap<_, _>>().into_values());
        }
        Kind::Rust => {
            own.extend(guest);
            page.extend(own.into_values());
        }
    }
    page
}

/// What the agent itself tells, where there is a virtual machine.
pub fn guest_page(monitor: &Monitor) -> String {
    let writer = Writer { kind: Kind::Rust };
    let families = monitor.vmm().map(|vmm| guest(monitor, &writer, vmm));
    families.into_iter().flatten().map(|(_, text)| text).collect()
}

/// What both of Kata's shims say of themselves.
fn shim(monitor: &Monitor, writer: &Writer) -> Families {
    let me = process::id();
    let mut families = process_families(
        writer,
        me,
        monitor.flavour.kind == Kind::Go,
        [
            ("kata_shim_threads", "Kata containerd shim v2 process threads."),
            (
                "kata_shim_io_stat",
                "Kata containerd shim v2 process IO statistics.",
            ),
            (
                "kata_shim_proc_stat",
                "Kata containerd shim v2 process statistics.",
            ),
            ("kata_shim_proc_status", "Kata containerd shim v2 process status."),
        ],
    );
    families.push(writer.one(
        "kata_shim_fds",
        "Kata containerd shim v2 open FDs.",
        proc::open_files(me),
    ));
    families
}

/// What only the Go shim has: itself as a process, the durations of calls, the overhead, the hypervisor.
fn go_shim_only(monitor: &Monitor, writer: &Writer) -> Families {
    let me = process::id();
    let status = proc::status(me);
    let bytes = |key: &str| status.get(key).map(|kilobytes| kilobytes * 1024.0);
    let octets = proc::ip_octets(me);
    let overhead = monitor.overhead();
    let mut families = vec![
        writer.counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            proc::cpu_seconds(me),
        ),
        writer.one(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            proc::limit(me, "Max open files"),
        ),
        writer.counter(
            "process_network_receive_bytes_total",
            "Number of bytes received by the process over the network.",
            octets.map(|(received, _)| received),
        ),
        writer.counter(
            "process_network_transmit_bytes_total",
            "Number of bytes sent by the process over the network.",
            octets.map(|(_, sent)| sent),
        ),
        writer.one(
            "process_open_fds",
            "Number of open file descriptors.",
            proc::open_files(me),
        ),
        writer.one(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            bytes("vmrss"),
        ),
        writer.one(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            proc::start_time(me),
        ),
        writer.one(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            bytes("vmsize"),
        ),
        writer.one(
            "process_virtual_memory_max_bytes",
            "Maximum amount of virtual memory available in bytes.",
            proc::limit(me, "Max address space"),
        ),
        writer.one(
            "kata_shim_pod_overhead_cpu",
            "Kata Pod overhead for CPU resources(percent).",
            Some(overhead.cpu_percent),
        ),
        writer.one(
            "kata_shim_pod_overhead_memory_in_bytes",
            "Kata Pod overhead for memory resources(bytes).",
            Some(overhead.memory_bytes),
        ),
        writer.histogram("kata_shim_rpc_durations_histogram_milliseconds", &monitor.rpcs),
        writer.histogram(
            "kata_shim_agent_rpc_durations_histogram_milliseconds",
            &monitor.agent_rpcs,
        ),
    ];
    if let Some(vmm) = monitor.vmm() {
        families.extend(process_families(
            writer,
            vmm,
            true,
            [
                ("kata_hypervisor_threads", "Hypervisor process threads."),
                ("kata_hypervisor_io_stat", "Process IO statistics."),
                ("kata_hypervisor_proc_stat", "Hypervisor process statistics."),
                ("kata_hypervisor_proc_status", "Hypervisor process status."),
            ],
        ));
        families.push(writer.one(
            "kata_hypervisor_fds",
            "Open FDs for hypervisor.",
            proc::open_files(vmm),
        ));
        let (name, help) = ("kata_hypervisor_netdev", "Net devices statistics.");
        families.push(writer.nested(name, help, "interface", proc::netdev(vmm)));
    }
    families
}

/// What comes from the guest: the agent's process and the guest's kernel.
fn guest(monitor: &Monitor, writer: &Writer, vmm: u32) -> Families {
    let me = process::id();
    let status = proc::status(me);
    let bytes = |key: &str| status.get(key).map(|kilobytes| kilobytes * 1024.0);
    let mut families = process_families(
        writer,
        me,
        false,
        [
            ("kata_agent_threads", "Agent process threads"),
            ("kata_agent_io_stat", "Agent process IO statistics."),
            ("kata_agent_proc_stat", "Agent process statistics."),
            ("kata_agent_proc_status", "Agent process status."),
        ],
    );
    families.extend([
        writer.counter(
            "kata_agent_scrape_count",
            "Metrics scrape count",
            Some(monitor.scrapes.load(Ordering::Relaxed) as f64),
        ),
        writer.one(
            "kata_agent_total_time",
            "Agent process total time",
            proc::cpu_seconds(me),
        ),
        writer.one(
            "kata_agent_total_rss",
            "Agent process total RSS size",
            bytes("vmrss"),
        ),
        writer.one(
            "kata_agent_total_vm",
            "Agent process total VM size",
            bytes("vmsize"),
        ),
        writer.nested(
            "kata_guest_cpu_time",
            "Guest CPU statistics.",
            "cpu",
            proc::cpu_times(),
        ),
        writer.nested(
            "kata_guest_diskstat",
            "Disks stat in system.",
            "disk",
            proc::disks(),
        ),
        writer.nested(
            "kata_guest_netdev_stat",
            "Guest net devices statistics.",
            "interface",
            proc::netdev(vmm),
        ),
        writer.items(
            "kata_guest_vm_stat",
            "Guest virtual memory statistics.",
            proc::vmstat(),
        ),
        writer.items(
            "kata_guest_meminfo",
            "Statistics about memory usage in the system.",
            meminfo(),
        ),
    ]);
    if let Some(([load1, load5, load15], [cur, max])) = proc::load() {
        let load = [("load1", load1), ("load15", load15), ("load5", load5)];
        families.push(writer.items("kata_guest_load", "Guest system load.", load));
        families.push(writer.items(
            "kata_guest_tasks",
            "Guest system load.",
            [("cur", cur), ("max", max)],
        ));
    }
    families
}

/// The four families that Kata has for each process it knows: threads, io, CPU times and status, in this order.
///
/// Kata's Go code reports sizes in bytes and runs the words of `/proc/<pid>/io` together; its Rust code passes
/// both on as the kernel has them.
fn process_families(writer: &Writer, pid: u32, by_go: bool, names: [(&'static str, &str); 4]) -> Families {
    let [threads, io, stat, status] = names;
    let mut fields = proc::status(pid);
    let thread_count = fields.get("threads").copied();
    fields.retain(|key, _| STATUS.contains(&key.as_str()));
    if by_go {
        fields.entry("vmpmd".to_owned()).or_insert(0.0);
        for (key, value) in &mut fields {
            if !key.ends_with("ctxt_switches") {
                *value *= 1024.0;
            }
        }
    }
    let ios = proc::io(pid).into_iter();
    let ios = ios.map(|(key, value)| (if by_go { key.replace('_', "") } else { key }, value));
    vec![
        writer.one(threads.0, threads.1, thread_count),
        writer.items(io.0, io.1, ios),
        writer.items(stat.0, stat.1, proc::times(pid).into_iter().flatten()),
        writer.items(status.0, status.1, fields),
    ]
}

/// The fields of `/proc/<pid>/status` that Kata reports, in lower case as it has them.
#[rustfmt::skip]
const STATUS: [&str; 18] = [
    "hugetlbpages", "nonvoluntary_ctxt_switches", "rssanon", "rssfile", "rssshmem", "vmdata", "vmexe",
    "vmhwm", "vmlck", "vmlib", "vmpeak", "vmpin", "vmpte", "vmrss", "vmsize", "vmstk", "vmswap",
    "voluntary_ctxt_switches",
];

/// `/proc/meminfo` in bytes under Kata's names, which are those of the kernel with the words parted.
fn meminfo() -> Vec<(String, f64)> {
    let fields = proc::meminfo();
    let named = MEMINFO.iter().filter_map(|item| {
        let key = match *item {
            "active_anon" => "active(anon)".to_owned(),
            "active_file" => "active(file)".to_owned(),
            "inactive_anon" => "inactive(anon)".to_owned(),
            "inactive_file" => "inactive(file)".to_owned(),
            "committed_as" | "nfs_unstable" => (*item).to_owned(),
            "direct_map_1G" | "direct_map_2M" | "direct_map_4M" | "direct_map_4k" => {
                item.replace('_', "").to_lowercase()
            }
            item if item.starts_with("hugepages_") => item.to_owned(),
            item => item.replace('_', ""),
        };
        let value = fields.get(&key)?;
        // These are numbers of pages; everything else is in kB.
        let unit = if item.starts_with("hugepages_") {
            1.0
        } else {
            1024.0
        };
        Some(((*item).to_owned(), value * unit))
    });
    named.collect()
}

/// The items of `kata_guest_meminfo`; those that this kernel does not have are left out.
#[rustfmt::skip]
const MEMINFO: [&str; 56] = [
    "active", "active_anon", "active_file", "anon_hugepages", "anon_pages", "bounce", "buffers", "cached",
    "cma_free", "cma_total", "commit_limit", "committed_as", "direct_map_1G", "direct_map_2M",
    "direct_map_4M", "direct_map_4k", "dirty", "hardware_corrupted", "high_free", "high_total",
    "hugepages_free", "hugepages_rsvd", "hugepages_surp", "hugepages_total", "hugepagesize", "hugetlb",
    "inactive", "inactive_anon", "inactive_file", "k_reclaimable", "kernel_stack", "low_free", "low_total",
    "mapped", "mem_available", "mem_free", "mem_total", "mlocked", "nfs_unstable", "page_tables", "per_cpu",
    "s_reclaimable", "s_unreclaim", "shmem", "shmem_hugepages", "shmem_pmd_mapped", "slab", "swap_cached",
    "swap_free", "swap_total", "unevictable", "vmalloc_chunk", "vmalloc_total", "vmalloc_used", "writeback",
    "writeback_tmp",
];
