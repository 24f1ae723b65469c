#!/usr/bin/env python3
"""Prints the Grafana dashboard that the Helm chart contains.

    packaging/grafana/dashboard.py >packaging/helm/kata-runtime-monitor/files/dashboard.json

A panel is an entry of ROWS: title, unit, what it shows, and its queries with the legend of their series.
"""

import json

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# Container families say namespace and pod; those of sandboxes and of the exporter about them cri_namespace and cri_name.
ON_NODE = 'job=~"$job",instance=~"$instance"'
CONTAINER = ON_NODE + ',namespace=~"$namespace",pod=~"$pod"'
# A sandbox's own container is the pod's pause: neither sum should have it.
APP = CONTAINER + ',container!="",container!="POD"'
SANDBOX = ON_NODE + ',cri_namespace=~"$namespace",cri_name=~"$pod"'

POD = "{{namespace}}/{{pod}}"
CRI_POD = "{{cri_namespace}}/{{cri_name}}"
EACH_POD = "sum by (namespace, pod)"
EACH_SANDBOX = "sum by (cri_namespace, cri_name)"


def rate(family, labels):
    return f"rate({family}{{{labels}}}[$__rate_interval])"


def as_pod(expression):
    """A sandbox's family with the labels of container families."""
    named = f'label_replace({expression}, "namespace", "$1", "cri_namespace", "(.*)")'
    return f'{EACH_POD} (label_replace({named}, "pod", "$1", "cri_name", "(.*)"))'


def graph(title, unit, about, *queries, stack=False):
    return {"kind": "timeseries", "title": title, "unit": unit, "about": about, "queries": queries, "stack": stack}


def number(title, unit, about, query):
    return {"kind": "stat", "title": title, "unit": unit, "about": about, "queries": [(query, "")]}


def table(title, about, columns, by):
    """Columns are (heading, unit, query); rows are joined by the labels `by`."""
    return {"kind": "table", "title": title, "about": about, "columns": columns, "by": by}


ROWS = [
    ("Pods", [
        table(
            "Pods and what their sandboxes cost",
            "What the containers of a pod use, and what its virtual machine takes on the host beyond that.",
            [
                ("CPU", "none", f'{EACH_POD} ({rate("container_cpu_usage_seconds_total", APP)})'),
                ("Memory", "bytes", f"{EACH_POD} (container_memory_working_set_bytes{{{APP}}})"),
                ("Overhead CPU", "none", as_pod(rate("kata_sandbox_overhead_cpu_seconds_total", SANDBOX))),
                ("Overhead memory", "bytes", as_pod(f"kata_sandbox_overhead_memory_bytes{{{SANDBOX}}}")),
                ("Guest's memory", "bytes", as_pod(f"kata_sandbox_configured_memory_bytes{{{SANDBOX}}}")),
                ("Answers", "bool_yes_no", as_pod(f"kata_monitor_sandbox_up{{{SANDBOX}}}")),
            ],
            ["namespace", "pod"],
        ),
        graph("CPU of containers", "none", "Processors that a pod's containers keep busy.",
              (f'{EACH_POD} ({rate("container_cpu_usage_seconds_total", APP)})', POD)),
        graph("Memory of containers", "bytes", "Working set of a pod's containers.",
              (f"{EACH_POD} (container_memory_working_set_bytes{{{APP}}})", POD)),
        graph("Overhead: CPU", "none",
              "Processors that the sandbox's processes (VMM, virtiofsd, shim) keep busy beyond what its containers use.",
              (f'{EACH_SANDBOX} ({rate("kata_sandbox_overhead_cpu_seconds_total", SANDBOX)})', CRI_POD)),
        graph("Overhead: memory", "bytes",
              "Resident memory of the sandbox's processes beyond what its containers use.",
              (f"{EACH_SANDBOX} (kata_sandbox_overhead_memory_bytes{{{SANDBOX}}})", CRI_POD)),
        graph("Memory near the limit", "percentunit", "Working set of a container, of its limit.",
              (f"container_memory_working_set_bytes{{{APP}}} / (container_spec_memory_limit_bytes{{{APP}}} > 0)",
               POD + "/{{container}}")),
        graph("Throttled", "percentunit", "Periods in which a container had to wait for its CPU limit.",
              (f'{rate("container_cpu_cfs_throttled_periods_total", APP)}'
               f' / ({rate("container_cpu_cfs_periods_total", APP)} > 0)', POD + "/{{container}}")),
        graph("OOM kills", "short", "Processes of a container that were killed at its memory limit, in an hour.",
              (f"increase(container_oom_events_total{{{APP}}}[1h])", POD + "/{{container}}")),
        graph("Pressure", "percentunit", "Time in which something in the container waited for CPU, memory or the disk (PSI).",
              *((rate(f"container_pressure_{what}_waiting_seconds_total", APP), POD + "/{{container}}: " + what)
                for what in ["cpu", "memory", "io"])),
        graph("Threads", "short", "Threads in a pod's containers.",
              (f"{EACH_POD} (container_threads{{{APP}}})", POD)),
        graph("Network", "Bps", "Received and, below zero, sent by a pod.",
              (f'{EACH_POD} ({rate("container_network_receive_bytes_total", CONTAINER)})', POD + " received"),
              (f'-{EACH_POD} ({rate("container_network_transmit_bytes_total", CONTAINER)})', POD + " sent")),
    ]),
    ("Virtual machines", [
        graph("Guest: memory in use", "percentunit", "What the guest's kernel cannot give away, of its memory.",
              (f'1 - kata_guest_meminfo{{{SANDBOX},item="mem_available"}}'
               f' / ignoring (item) kata_guest_meminfo{{{SANDBOX},item="mem_total"}}', CRI_POD)),
        graph("Guest: load", "short", "Load average of one minute in the guest.",
              (f'kata_guest_load{{{SANDBOX},item="load1"}}', CRI_POD)),
        graph("Memory by part", "bytes", "Resident memory of all sandboxes that are chosen, in parts that add up.",
              (f"sum by (part) (kata_sandbox_memory_bytes{{{SANDBOX}}})", "{{part}}"), stack=True),
        graph("CPU by part", "none", "Processors that the sandboxes' processes keep busy, by part.",
              (f'sum by (part) ({rate("kata_sandbox_process_cpu_seconds_total", SANDBOX)})', "{{part}}"), stack=True),
        graph("Virtual processors wait", "percentunit",
              "Time that virtual processors waited for one of the host's, of the time that they wanted to run: steal time.",
              (f'{EACH_SANDBOX} ({rate("kata_sandbox_vcpu_wait_seconds_total", SANDBOX)})'
               f' / {EACH_SANDBOX} ({rate("kata_sandbox_vcpu_wait_seconds_total", SANDBOX)}'
               f' + {rate("kata_sandbox_vcpu_run_seconds_total", SANDBOX)})', CRI_POD)),
        graph("VMM threads", "none", "Processors that the threads of the VMMs keep busy, by role.",
              (f'sum by (role) ({rate("kata_sandbox_thread_run_seconds_total", SANDBOX)})', "{{role}}"), stack=True),
        graph("Disk", "Bps", "Read from and, below zero, written to the host's disks by the sandboxes' processes.",
              (f'{EACH_SANDBOX} ({rate("kata_sandbox_disk_read_bytes_total", SANDBOX)})', CRI_POD + " read"),
              (f'-{EACH_SANDBOX} ({rate("kata_sandbox_disk_written_bytes_total", SANDBOX)})', CRI_POD + " written")),
        graph("Packets dropped on the way to and from guests", "pps", "Between a pod's network and its guest.",
              (f'sum by (direction, cri_namespace, cri_name) ({rate("kata_sandbox_network_dropped_packets_total", SANDBOX)})',
               CRI_POD + " {{direction}}")),
    ]),
    ("Nodes", [
        graph("Sandboxes", "short", "Sandboxes on each node.",
              (f"kata_monitor_running_shim_count{{{ON_NODE}}}", "{{instance}}")),
        graph("Containers", "short", "Containers on each node whose statistics are known.",
              (f"sum by (instance) (kata_monitor_container_up{{{ON_NODE}}})", "{{instance}}")),
        graph("Overhead: CPU", "none", "Of all sandboxes of a node.",
              (f'sum by (instance) ({rate("kata_sandbox_overhead_cpu_seconds_total", ON_NODE)})', "{{instance}}")),
        graph("Overhead: memory", "bytes", "Of all sandboxes of a node.",
              (f"sum by (instance) (kata_sandbox_overhead_memory_bytes{{{ON_NODE}}})", "{{instance}}")),
        graph("Kinds of sandboxes", "short", "By runtime class handler, hypervisor and Kata's shim.",
              (f"count by (handler, hypervisor, shim) (kata_sandbox_info{{{ON_NODE}}})",
               "{{handler}} {{hypervisor}} {{shim}}"), stack=True),
    ]),
    ("The exporter", [
        number("Exporters that answer", "percentunit", "Of all that are to be scraped.", 'avg(up{job=~"$job"})'),
        number("Sandboxes that answer", "percentunit", "Of all that are there.",
               f"avg(kata_monitor_sandbox_up{{{ON_NODE}}})"),
        graph("Without an answer", "short", "Sandboxes and containers that were not told of, or not fully, by reason.",
              (f"count by (reason) (kata_monitor_sandbox_failure{{{ON_NODE}}})", "sandboxes: {{reason}}"),
              (f"count by (reason) (kata_monitor_container_failure{{{ON_NODE}}})", "containers: {{reason}}")),
        graph("Time of a scrape", "s", "As Prometheus saw it.",
              (f"scrape_duration_seconds{{{ON_NODE}}}", "{{instance}}")),
        graph("Slowest sandboxes", "s", "Time until a sandbox's answer was there, the slowest ten.",
              (f"topk(10, kata_monitor_sandbox_scrape_duration_seconds{{{SANDBOX}}})", CRI_POD)),
        graph("Samples in a scrape", "short", "",
              (f"scrape_samples_scraped{{{ON_NODE}}}", "{{instance}}")),
        graph("Failed scrapes", "short", "Scrapes for which nothing could be gathered, in an hour.",
              (f"increase(kata_monitor_scrape_failed_count{{{ON_NODE}}}[1h])", "{{instance}}")),
        graph("Its CPU", "none", "Processors that the exporter keeps busy.",
              (rate("kata_monitor_process_cpu_seconds_total", ON_NODE), "{{instance}}")),
        graph("Its memory", "bytes", "Resident memory of the exporter.",
              (f"kata_monitor_process_resident_memory_bytes{{{ON_NODE}}}", "{{instance}}")),
        graph("Its file descriptors", "short", "",
              (f"kata_monitor_process_open_fds{{{ON_NODE}}}", "{{instance}}")),
    ]),
]


def target(query, legend, ref, instant=False):
    made = {"datasource": DATASOURCE, "expr": query, "legendFormat": legend, "refId": ref}
    return made | ({"instant": True, "range": False, "format": "table"} if instant else {"range": True})


def panel(spec):
    base = {"title": spec["title"], "description": spec["about"], "datasource": DATASOURCE, "type": spec["kind"]}
    if spec["kind"] == "table":
        refs = "ABCDEFGHIJ"
        columns = list(zip(refs, spec["columns"]))
        return base | {
            "targets": [target(query, "", ref, instant=True) for ref, (_, _, query) in columns],
            "transformations": [
                {"id": "merge", "options": {}},
                {"id": "organize", "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate(spec["by"])},
                    "renameByName": {f"Value #{ref}": heading for ref, (heading, _, _) in columns},
                }},
            ],
            "fieldConfig": {"defaults": {"custom": {"filterable": True}}, "overrides": [
                {"matcher": {"id": "byName", "options": heading},
                 "properties": [{"id": "unit", "value": unit}, {"id": "decimals", "value": 2}]}
                for heading, unit, _ in spec["columns"]
            ]},
            "options": {"showHeader": True, "sortBy": [{"displayName": spec["columns"][0][0], "desc": True}]},
        }
    targets = [target(query, legend, "ABCDEFGHIJ"[place]) for place, (query, legend) in enumerate(spec["queries"])]
    defaults = {"unit": spec["unit"]}
    if spec["kind"] == "stat":
        defaults |= {"min": 0, "max": 1}
        return base | {"targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []},
                       "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}}
    defaults["custom"] = {"fillOpacity": 20 if spec["stack"] else 0, "lineWidth": 1, "showPoints": "never",
                          "stacking": {"mode": "normal" if spec["stack"] else "none"}}
    return base | {"targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []},
                   "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                               "tooltip": {"mode": "multi", "sort": "desc"}}}


def panels():
    made, y = [], 0
    for title, specs in ROWS:
        made.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        x, y = 0, y + 1
        for spec in specs:
            width, height = (24, 9) if spec["kind"] == "table" else (12, 8)
            if x + width > 24:
                x, y = 0, y + 8
            made.append(panel(spec) | {"gridPos": {"x": x, "y": y, "w": width, "h": height}})
            x += width
            if x == 24:
                x, y = 0, y + height
        y += 8 if x else 0
    return [one | {"id": place + 1} for place, one in enumerate(made)]


def variable(name, label, query, **more):
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "refresh": 2, "sort": 1,
            "query": {"query": query, "refId": name}, "definition": query} | more


def several(name, label, query):
    # Containers that are in no pod have no such label: all of them are chosen as well.
    return variable(name, label, query, multi=True, includeAll=True, allValue=".*",
                    current={"text": ["All"], "value": ["$__all"]})


DASHBOARD = {
    "uid": "kata-runtime",
    "title": "Sandboxed containers",
    "description": "What containers use and what their sandboxes cost, as kata-runtime monitor has it.",
    "tags": ["kata-containers", "containers"],
    "schemaVersion": 39,
    "editable": True,
    "graphTooltip": 1,
    "refresh": "30s",
    "time": {"from": "now-1h", "to": "now"},
    "templating": {"list": [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        # More than one where container families are given another job, as kubernetes-mixin expects (docs/dashboards.md).
        variable("job", "Job", 'label_values({__name__=~"kata_monitor_build_info|container_last_seen"}, job)', multi=True,
                 current={"text": ["kata-runtime-monitor"], "value": ["kata-runtime-monitor"]}),
        several("instance", "Node", 'label_values(kata_monitor_build_info{job=~"$job"}, instance)'),
        several("namespace", "Namespace",
                'label_values(container_last_seen{job=~"$job",instance=~"$instance"}, namespace)'),
        several("pod", "Pod",
                'label_values(container_last_seen{job=~"$job",instance=~"$instance",namespace=~"$namespace"}, pod)'),
    ]},
    "panels": panels(),
}
print(json.dumps(DASHBOARD, indent=2))
