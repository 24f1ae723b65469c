"""Run by test-chart.sh on what it has rendered: validates, and asserts what the exporter cannot do without."""

import json
import pathlib
import re
import sys

import kubernetes_validate
import yaml

work, places = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
# The oldest release that the chart says it runs on, as far as there are schemas, and newer ones.
VERSIONS = ["1.25", "1.30", "1.34", "1.37"]
# Fields that older servers do not know, and leave out with a warning.
NEWER = {"appArmorProfile": (1, 30)}


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def one(rendered, kind):
    (found,) = [document for document in rendered if document["kind"] == kind]
    return found


def without(value, names):
    if isinstance(value, dict):
        return {key: without(inner, names) for key, inner in value.items() if key not in names}
    return [without(inner, names) for inner in value] if isinstance(value, list) else value


def validate(rendered):
    """Kubernetes' own kinds by its schemas; Prometheus Operator's are printed, for test-chart.mjs."""
    for document in rendered:
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            print(json.dumps(document))
            continue
        for version in VERSIONS:
            numbers = tuple(map(int, version.split(".")))
            newer = [name for name, since in NEWER.items() if numbers < since]
            kubernetes_validate.validate(without(document, newer), version, strict=True)


def container(rendered):
    pod = one(rendered, "DaemonSet")["spec"]["template"]["spec"]
    assert pod["hostPID"] is True
    assert pod["automountServiceAccountToken"] is False
    (only,) = pod["containers"]
    mounted = {mount["name"]: mount for mount in only["volumeMounts"]}
    for volume in pod["volumes"]:
        mount = mounted.pop(volume["name"])
        assert mount["readOnly"] is True, mount
        if "hostPath" in volume:
            assert mount["mountPath"] == volume["hostPath"]["path"], "paths in bundles are the host's"
    assert not mounted
    return pod, only


def mounted_paths(pod):
    return [pathlib.PurePosixPath(volume["hostPath"]["path"]) for volume in pod["volumes"] if "hostPath" in volume]


renders = {path.stem: documents(path) for path in work.glob("*.yaml") if path.stem != "kata-values"}
renders |= {path.name: documents(path) for path in pathlib.Path("packaging/kubernetes").glob("*.yaml")}
for rendered in renders.values():
    validate(rendered)

pod, monitor = container(renders["default"])
assert monitor["args"] == ["--listen-address=0.0.0.0:8090"], monitor["args"]
assert monitor["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE", "DAC_READ_SEARCH"]}
assert monitor["livenessProbe"]["httpGet"]["path"] == "/healthz"
assert len(renders["default"]) == 1, "monitors, rules and dashboard are behind switches"
assert renders["off"] == []

# Every place that the program looks into, both of Kata's directories, and cgroups are mounted.
looked_into = re.findall(r'\b(?:containerd|storage)\(\s*"(/[^"]+)"', places.read_text())
assert len(looked_into) >= 12, looked_into
elsewhere = {"/var/snap/microk8s/common/run/containerd", "/system/run/containerd"}
microk8s, _ = container(renders["everything"])
for path in looked_into + ["/run/vc/sbs", "/run/kata", "/sys/fs/cgroup"]:
    def sees(pod):
        return any(pathlib.PurePosixPath(path).is_relative_to(mounted) for mounted in mounted_paths(pod))
    assert sees(pod) or path in elsewhere, f"{path} is not mounted"
    if "microk8s" in path:
        assert sees(microk8s), f"{path} is not mounted on MicroK8s"

# kata-deploy's values make an exporter with kata-monitor's arguments.
pod, monitor = container(renders["kata"])
assert monitor["image"] == "quay.io/kata-containers/kata-monitor:0.1.0", monitor["image"]
assert monitor["args"] == [
    "--listen-address=0.0.0.0:8090", "--log-level=debug", "--runtime-endpoint=unix:///run/containerd/containerd.sock"
], monitor["args"]
assert monitor["resources"]["limits"] == {"cpu": "200m", "memory": "300Mi"}
assert monitor["securityContext"]["readOnlyRootFilesystem"] is True, "what is not in the values stays"

pod, monitor = container(renders["tls"])
assert "--tls-cert-file=/etc/kata-runtime/cert.pem" in monitor["args"]
assert monitor["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
assert monitor["image"].endswith("@sha256:0123")
pod, monitor = container(renders["everything"])
assert "--web.config.file=/etc/kata-runtime/web.yml" in monitor["args"]
assert "tcpSocket" in monitor["livenessProbe"], "the kubelet has no password"

# What Prometheus Operator is told.
labels = one(renders["everything"], "DaemonSet")["spec"]["template"]["metadata"]["labels"]
for kind, endpoints in [("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")]:
    spec = one(renders["everything"], kind)["spec"]
    (endpoint,) = spec[endpoints]
    assert endpoint["honorLabels"] is True, "pod and container are those that a series is about"
    assert endpoint["params"] == {"filter_family": ["container_"]}
    assert endpoint["scheme"] == "https" and endpoint["port"] == "metrics"
    assert labels[spec["jobLabel"]] == "kata-runtime-monitor", "the job that the rules are about"
    assert spec["selector"]["matchLabels"].items() <= labels.items()
service = one(renders["everything"], "Service")
assert service["spec"]["selector"].items() <= labels.items()
assert service["metadata"]["labels"]["app.kubernetes.io/name"] == "kata-runtime-monitor"
rules = one(renders["everything"], "PrometheusRule")["spec"]
chart = pathlib.Path("packaging/helm/kata-runtime-monitor/files")
assert rules == yaml.safe_load((chart / "rules.yaml").read_text())
config_map = one(renders["everything"], "ConfigMap")
assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
assert json.loads(config_map["data"]["kata-runtime.json"]) == json.loads((chart / "dashboard.json").read_text())
