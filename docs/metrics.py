"""Prints docs/reference/metrics.md; see generate.sh.

Names, types and help are read in the exporter's sources, since no page has all families at once. Units and labels are told
here: a family whose unit cannot be told by its name, and is not in UNITS, is an error. The golden page of the tests checks
what is read: each of its HELP lines has to be among it. Kata's own families are from a recorded page.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPORTER = ROOT / "src/exporter"
GOLDEN = ROOT / "tests/monitor/golden/page.txt"
RECORDED = ROOT / "crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt"

# What a family's name does not say.
UNITS = {
    "container_last_seen": "seconds since 1970",
    "container_start_time_seconds": "seconds since 1970",
    "kata_monitor_process_start_time_seconds": "seconds since 1970",
    "container_spec_cpu_period": "µs",
    "container_spec_cpu_quota": "µs",
    "container_spec_cpu_shares": "shares",
    "container_blkio_device_usage_total": "bytes",
    "container_memory_cache": "bytes",
    "container_memory_kernel_usage": "bytes",
    "container_memory_mapped_file": "bytes",
    "container_memory_rss": "bytes",
    "container_memory_swap": "bytes",
    "kata_monitor_scrape_durations_histogram_milliseconds": "ms",
}
COUNTS = """
    container_cpu_cfs_periods_total container_cpu_cfs_throttled_periods_total container_file_descriptors
    container_fs_inodes_free container_fs_inodes_total container_fs_reads_total container_fs_writes_total
    container_hugetlb_failcnt container_memory_failcnt container_memory_failures_total
    container_network_receive_errors_total container_network_receive_packets_dropped_total
    container_network_receive_packets_total container_network_transmit_errors_total
    container_network_transmit_packets_dropped_total container_network_transmit_packets_total
    container_oom_events_total container_processes container_sockets container_threads container_threads_max
    container_ulimits_soft kata_monitor_go_goroutines kata_monitor_go_threads kata_monitor_process_max_fds
    kata_monitor_process_open_fds kata_monitor_running_shim_count kata_monitor_sandbox_lost_lines
    kata_monitor_scrape_count kata_monitor_scrape_failed_count kata_monitor_answers_total
    kata_sandbox_network_dropped_packets_total kata_sandbox_threads kata_sandbox_threads_left_out
    kata_sandbox_vcpus""".split()
FLAGS = """
    kata_monitor_build_info kata_monitor_container_failure kata_monitor_container_info kata_monitor_container_up
    kata_monitor_host_pids_visible kata_monitor_host_processes_readable kata_monitor_sandbox_failure
    kata_monitor_sandbox_up kata_sandbox_info""".split()

# Labels beside those of all families of the group.
LABELS = [
    (r"container_blkio_device_usage_total", "`device`, `major`, `minor`, `operation`"),
    (r"container_fs_.*", "`device`"),
    (r"container_hugetlb_.*", "`pagesize`"),
    (r"container_memory_failures_total", "`failure_type`, `scope`"),
    (r"container_network_.*", "`interface`"),
    (r"container_cpu_usage_seconds_total", "`cpu`: always `total`"),
    (r"container_ulimits_soft", "`ulimit`: always `max_open_files`"),
    (r"kata_monitor_build_info", "`version`, `commit`"),
    (r"kata_monitor_(sandbox|container)_failure", "and `reason`"),
    (r"kata_monitor_container_info", "and `runtime`, `hypervisor`, `shim`, `machine`"),
    (r"kata_monitor_answers_total", "`cpu_known`"),
    (r"kata_sandbox_info", "`handler`, `hypervisor`, `machine`, `shim`"),
    (r"kata_sandbox_(disk_.*|memory_bytes|process_.*)", "`part`"),
    (r"kata_sandbox_network_.*", "`direction`"),
    (r"kata_sandbox_thread(s|_.*)", "`role`"),
    (r"kata_sandbox_vcpu_.*", "`vcpu`"),
]
NO_LABELS = ["kata_sandbox_threads_left_out"]

# Where the numbers of each file's families come from.
SOURCES = {
    "cpu": "the runtime's statistics; a quota's periods also from the cgroup's `cpu.stat`",
    "devices": "the runtime's statistics; `container_fs_{limit,inodes,usage}*`: the host's filesystem",
    "limits": "the cgroup's files on this host, as they are now; memory limits else from the runtime's statistics",
    "memory": "the runtime's statistics",
    "network": "`/proc/<pid>/net/dev` of the task, or the runtime's statistics where they have it",
    "pressure": "the runtime's statistics (cgroup v2)",
    "processes": "`/proc` and `cgroup.procs` on this host; `container_threads`: the runtime's statistics",
    "time": "the bundle, and this program's clock",
}

# Kata's own: units by the sources of Kata 3.30 and 4.1.0, and the recorded values.
KATA_UNITS = [
    (r"kata_.*_proc_stat", "clock ticks of 10 ms"),
    (r"kata_agent_proc_status", "kB; context switches: a count"),
    (r"kata_.*_proc_status", "bytes (Rust shim: kB); context switches: a count"),
    (r"kata_.*_io_stat", "bytes; `syscr`, `syscw`: calls"),
    (r"kata_.*netdev.*", "bytes, packets"),
    (r"kata_guest_meminfo", "bytes; `hugepages_*`: pages"),
    (r"kata_guest_cpu_time", "ms"),
    (r"kata_guest_vm_stat", "as in `/proc/vmstat`"),
    (r"kata_guest_load", "as in `/proc/loadavg`"),
    (r"kata_guest_tasks", "tasks"),
    (r"kata_.*_histogram_milliseconds", "ms"),
    (r"kata_agent_total_time", "seconds"),
    (r"kata_agent_total_(rss|vm)", "bytes"),
    (r"kata_shim_pod_overhead_cpu", "per cent"),
    (r"kata_shim_pod_overhead_memory_in_bytes", "bytes"),
    (r"kata_.*_(fds|threads)|kata_agent_scrape_count", "count"),
]
KATA_SOURCES = [
    (r"kata_(agent|guest)_.*", "the agent, in the guest"),
    (r"kata_shim_.*histogram.*", "the shim's own clock"),
    (r"kata_.*", "the shim, in the host's `/proc`"),
]


def first(table, name):
    return next((value for pattern, value in table if re.fullmatch(pattern, name)), None)


def unit(name):
    if name in UNITS:
        return UNITS[name]
    if name in COUNTS:
        return "count"
    if name in FLAGS:
        return "1, or 0" if name.endswith(("_up", "_visible", "_readable")) else "always 1"
    for suffix, word in (("_seconds_total", "s"), ("_seconds", "s"), ("_bytes_total", "bytes"), ("_bytes", "bytes")):
        if name.endswith(suffix):
            return word
    sys.exit(f"docs/metrics.py: the unit of {name} is not known: add it to UNITS, COUNTS or FLAGS")


def families(path, prefix):
    """(name, type, help) of what a source file defines: a name and a help, with a type before or between them."""
    text = re.sub(r"//[^\n]*", "", path.read_text())
    text = text.split("#[cfg(test)]")[0]
    found = re.findall(
        r"(?:\b(counter|gauge)\()?\(?\s*\"(" + prefix + r"[a-z_]+)\",\s*(?:(?:Kind::)?(COUNTER|GAUGE|Counter|Gauge|Histogram),\s*)?"
        r"(?:\"((?:[^\"\\]|\\.)*)\"|([a-z]+))[,)]", text)
    for before, name, between, help_, variable in found:
        if variable:
            # The last one before it of that name.
            told = re.findall(rf"(?:let|const) {variable}(?:: &str)? =\s*\"([^\"]*)\"", text.split(f'"{name}"')[0])
            if not told:
                sys.exit(f"docs/metrics.py: {path.name}: the help of {name} was not found")
            help_ = told[-1]
        yield name, (before or between or "gauge").lower(), help_


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def table(rows):
    row("family", "type", "unit", "labels", "what")
    row("---", "---", "---", "---", "---")
    for name, kind, help_ in rows:
        labels = "" if name in NO_LABELS else first(LABELS, name) or ""
        row(f"`{name}`", kind, unit(name), labels, help_)


def help_lines(path):
    text = path.read_text()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.M))
    return [(name, types.get(name, "untyped"), help_) for name, help_ in re.findall(r"^# HELP (\S+) (.*)$", text, flags=re.M)]


everything = {}


def known(rows):
    rows = sorted(set(rows))
    everything.update({name: (kind, help_) for name, kind, help_ in rows})
    return rows


print("""# Metrics

Every family of `kata-runtime monitor`, with type, unit, labels and source. Made by `docs/generate.sh`; a help text is what
`/metrics` says. A number that nobody measured has no sample: no family is there in every case.

Which of them are in `--profile lean`, and what all of them cost: [what `monitor` serves](../exporter-costs.md). What is
served where, and by which parameters: [monitor](monitor.md).

## Containers

Labels of all of them: `namespace`, `pod`, `container`, `image`, `name`, `id`; `containerd_namespace` of containers in no pod.
A label that would be empty is left out. Their meaning is cAdvisor's; what differs, field by field:
[container_* and what cAdvisor means by them](../cadvisor-meanings.md).""")
TITLES = {"cpu": "CPU", "devices": "Devices and filesystems"}
for part, source in SOURCES.items():
    print(f"\n### {TITLES.get(part, part.capitalize())}\n\nSource: {source}.\n")
    table(known(families(EXPORTER / f"container_metrics/{part}.rs", "container_")))

print("""
## Virtual machines

Labels of all of them: `sandbox_id`, `cri_uid`, `cri_name`, `cri_namespace`. Source: the host's `/proc` and cgroupfs, never the
shim or the guest; which file, and what each figure means: [what a virtual machine costs its host](../vm-cost.md#figures).
""")
table(known(families(EXPORTER / "vm/families.rs", "kata_sandbox_")))

print("""
## The exporter itself

Source: this program; the process's own figures are from `/proc/self`. Of `kata_monitor_sandbox_*` the labels are those of
virtual machines; of `kata_monitor_container_*` those of containers, with `sandbox_id`. The reasons are
[a table](errors.md#reasons-of-the-exporter).
""")
table(known(pair for path in sorted(set(EXPORTER.glob("*.rs")) - {EXPORTER / "tests.rs"}) for pair in families(path, "kata_monitor_")))

for name, kind, help_ in help_lines(GOLDEN):
    if everything.get(name) != (kind, help_):
        sys.exit(f"docs/metrics.py: {name} of the golden page was not found in the sources, or found as {everything.get(name)}")

print("""
## What Kata sends

Each sandbox's own page, as its Go shim sends it (recorded from Kata 3.30; 4.1.0 has the same). The exporter adds the labels of
virtual machines and passes on every value as it is written. `go_*` and `process_*` are about the shim, and are served as
`kata_shim_go_*` and `kata_shim_process_*`. Kata 3.32 and later add `kata_guest_filesystem_bytes` and
`kata_guest_filesystem_inodes`. The Rust shim's page has the families of agent, guest and shim alone.

| family | type | unit | labels | source | what |
|---|---|---|---|---|---|""")
page = RECORDED.read_text()
for name, kind, help_ in sorted(help_lines(RECORDED)):
    if not name.startswith("kata_"):
        continue
    sample = re.search(rf"^{name}(?:_bucket|_sum|_count)?\{{(.*?)\}} ", page, flags=re.M)
    labels = re.findall(r"([a-z_]+)=\"", sample.group(1)) if sample else []
    labels = ", ".join(f"`{label}`" for label in labels if label != "le")
    unit_ = first(KATA_UNITS, name) or sys.exit(f"docs/metrics.py: the unit of {name} is not known: add it to KATA_UNITS")
    row(f"`{name}`", kind, unit_, labels, first(KATA_SOURCES, name), help_)
