"""Runs the commands in the documentation, and compares what they print with what the documentation says.

In a block ```console, each line that starts with `$ ` is a command. Below it is what it prints: lines of stderr have
`stderr: ` before them, and `(exit status N)` follows unless it is 0. `…` stands for any text, on a line of its own for any
lines. Who runs a block is said after `console`:

              check.sh, on a state directory made here: the pod shop/web-0 (a sandbox and the container nginx) and the
              container `web`, whose shims have died. What is printed has to agree in every character
    node      node.sh, on containers of a real containerd
    node hung node.sh, after the guest of shop/web-0 and the shim of shop/db-0 have been made to hang
    demo      examples/demo.sh, whose output is read here

For the last three, numbers, units, widths of columns and the order of lines may differ. Where nothing is below a command it
only has to succeed. Commands in other blocks, which nothing of this runs, are in ELSEWHERE.

Arguments: `--node BINARY DIRECTORY KIND`, with containerd's directory, or `--demo OUTPUT`. check.py calls `check`.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SANDBOX = "92f5bfc483678d9b06199cc2772de204f5cc005e4cc810cb4e98c145ecc8af9c"
NGINX = "f9b33532563a0f8ce1f3bb3af1a14f83b5d58a1ff5ad8fbc2a1b4b8a1d83a1f0"
KINDS = ("", "node", "node hung", "demo")

# Commands that the documentation names outside of the blocks above: the file that runs them and the words that do, or why
# they cannot be run here.
NO_CLUSTER = "needs a cluster of Kubernetes"
ELSEWHERE = {
    "cargo install --path .": ("packaging/build.sh", "cargo build"),
    "packaging/build.sh": (".ci/run", "packaging/build.sh"),
    "examples/demo.sh": (".ci/run", "examples/demo.sh"),
    "kata-runtime monitor": ("examples/demo.sh", "monitor --listen-address"),
    "tests/run.sh": (".ci/run", "tests/run.sh"),
    "cargo build --release --package kata-runtime --package sandbox-shim": ("examples/demo.sh", "cargo build"),
    "KATA_RUNTIME=target/release/kata-runtime SHIMS=target/release tests/faults/soak.sh 60 200 50 10":
        (".ci/run", "tests/faults/soak.sh"),
    "apt install containerd runc": ("examples/demo.sh", "ctd_need cc=gcc containerd=containerd runc=runc"),
    "ctr image pull docker.io/library/busybox:latest": "needs a container registry; docs/node.sh imports that image",
    "sha256sum --check --ignore-missing SHA256SUMS": ("packaging/test-package.sh", "sha256sum --quiet --check SHA256SUMS"),
    "gh attestation verify kata-runtime_0.1.0-1_amd64.deb --repo kata-runtime/kata-runtime":
        "needs GitHub's attestation of a published release",
    "apt install ./kata-runtime_0.1.0-1_amd64.deb":
        ("packaging/in-package-test.sh", "apt-get --yes install /mnt/kata-runtime_*.deb"),
    "man kata-runtime": ("packaging/in-package-test.sh", 'man --encoding=UTF-8 "kata-runtime$command"'),
    "systemctl enable --now kata-runtime-monitor":
        ("packaging/boot-test.sh", "systemctl enable --now kata-runtime-monitor.service"),
    "curl -s http://127.0.0.1:8090/metrics": ("packaging/boot-test.sh", "http://127.0.0.1:8090/metrics"),
    "systemctl edit kata-runtime-monitor.socket":
        ("packaging/boot-test.sh", "/etc/systemd/system/kata-runtime-monitor.socket.d/override.conf"),
    "systemctl restart kata-runtime-monitor.socket kata-runtime-monitor.service":
        ("packaging/boot-test.sh", "systemctl restart kata-runtime-monitor.socket kata-runtime-monitor.service"),
    "kubectl create namespace kata-system": NO_CLUSTER,
    "kubectl label namespace kata-system pod-security.kubernetes.io/enforce=privileged": NO_CLUSTER,
    "helm install kata-runtime-monitor packaging/helm/kata-runtime-monitor --namespace kata-system "
    r"--set 'nodeSelector.katacontainers\.io/kata-runtime=true'":
        ("packaging/test-chart.sh", "the documentation's helm commands"),
    "helm upgrade kata-runtime-monitor packaging/helm/kata-runtime-monitor --namespace kata-system "
    "--set podMonitor.enabled=true --set prometheusRule.enabled=true --set dashboard.enabled=true":
        ("packaging/test-chart.sh", "the documentation's helm commands"),
    "helm upgrade kata-deploy … --set monitor.image.reference=ghcr.io/kata-runtime/kata-runtime "
    "--set monitor.image.tag=0.1.0": NO_CLUSTER + " and Kata's own chart",
    "kubectl apply -f packaging/kubernetes/kata-runtime-monitor.yaml":
        NO_CLUSTER + "; packaging/test-chart.py checks the file against Kubernetes' schemas",
    "kubectl --namespace kata-system exec daemonset/kata-runtime-monitor -- kata-runtime list":
        NO_CLUSTER + "; tests/e2e/image.rs runs it in the image under containerd",
    "kubectl --namespace kata-system exec -it daemonset/kata-runtime-monitor -- kata-runtime top": NO_CLUSTER,
    "kubectl patch runtimeclass kata-qemu --type merge -p "
    """'{"overhead":{"podFixed":{"memory":"290Mi","cpu":"290m"}}}'""": NO_CLUSTER,
    "kata-monitor -listen-address=0.0.0.0:8090 -log-level=info -runtime-endpoint=unix:///run/containerd/containerd.sock":
        "is Kata's program",
    "kata-runtime monitor -listen-address=0.0.0.0:8090 -log-level=info "
    "-runtime-endpoint=unix:///run/containerd/containerd.sock":
        ("tests/monitor/clients.rs", "-runtime-endpoint=unix:///run/containerd/containerd.sock"),
}
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:sudo )?(?:kata-runtime|kata-monitor|kata-ctl|apt|apt-get|cargo|crictl|ctr|curl|docker|gh|git|go|helm|"
    r"kubectl|man|nerdctl|podman|promtool|runc|sha256sum|systemctl|(?:\./)?(?:benches|docs|examples|fuzz|packaging|tests)/\S+) *")
# A synopsis shows what may be left out or put in.
SYNOPSIS = re.compile(r"[\[<|]")


def blocks(text):
    """(line number, info string, lines) of each fenced block."""
    found, fence = [], None
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            if fence is None:
                fence = (number, line.strip()[3:].strip(), [])
            else:
                found.append(fence)
                fence = None
        elif fence is not None:
            fence[2].append(line)
    return found


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def console(kinds):
    """(place, command, lines that it prints) of the blocks of these kinds."""
    for page in pages():
        for number, info, lines in blocks(page.read_text()):
            word, _, kind = info.partition(" ")
            if word == "console" and kind in kinds:
                for command, expected in commands(lines):
                    yield f"{page.relative_to(ROOT)}:{number}", command, expected


def commands(lines):
    """(command, the lines below it) of a console block."""
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and not (line == "" and not found[-1][1]):
            found[-1][1].append(line)
    for _, expected in found:
        while expected and expected[-1] == "":
            expected.pop()
    return found


def pattern(expected):
    """A regular expression of these lines."""
    parts = []
    for line in expected:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(re.escape(piece) for piece in line.split("…")) + r" *\n")
    return "".join(parts)


def shape(line):
    """A line without what differs from one run to the next."""
    line = re.sub(r"\b[0-9a-f]{64}\b", "ID", line)
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME", line)
    line = re.sub(r"\d[\d.]*(?:e[+-]?\d+)?(?:%|[KMGT]iB|B|ns|us|ms|s|m|h|d)?(?:/s\b)?", "N", line)
    # What was not measured on one machine may be on another.
    line = re.sub(r"(?<=\s)-(?=\s|$)", "N", line)
    return re.sub(r"\s+", " ", re.sub(r"NN+", "N", line)).strip()


def alike(expected, said):
    """Whether both have the same lines, but for numbers, widths and order."""
    expected, said = [shape(line) for line in expected], [shape(line) for line in said.splitlines()]
    expected, said = [line for line in expected if line], [line for line in said if line]
    if any("…" in line for line in expected):
        return re.fullmatch(pattern(expected), "".join(f"{line}\n" for line in said)) is not None
    return sorted(expected) == sorted(said)


def differs(place, command, expected, said):
    return f"{place}: $ {command}\n--- should print\n" + "\n".join(expected) + f"\n--- prints\n{said}"


def run(command, directory, environment, seconds=30):
    """What a command said, as the documentation writes it."""
    done = subprocess.run(["bash", "-c", command], cwd=directory, env=environment, timeout=seconds,
                          stdin=subprocess.DEVNULL, capture_output=True)
    said = done.stdout.decode(errors="replace")
    said += "".join(f"stderr: {line}\n" for line in done.stderr.decode(errors="replace").splitlines())
    return said + (f"(exit status {done.returncode})\n" if done.returncode else "")


def environment(scratch, binary, state):
    """One in which `kata-runtime` is the binary, on that state directory."""
    (scratch / "bin").mkdir()
    wrapper = scratch / "bin" / "kata-runtime"
    wrapper.write_text(f'#!/bin/sh\nexec "{binary}" --state "{state}" "$@"\n')
    wrapper.chmod(0o755)
    return {"PATH": f"{scratch}/bin:{os.environ['PATH']}", "HOME": str(scratch), "LC_ALL": "C.UTF-8"}


def make_node(directory):
    """A state directory of containerd's whose shims are dead."""
    def bundle(namespace, identifier, annotations):
        path = directory / "io.containerd.runtime.v2.task" / namespace / identifier
        path.mkdir(parents=True)
        (path / "address").write_text(f"unix://{directory}/{identifier[:12]}.sock")
        spec = {"ociVersion": "1.1.0", "annotations": annotations}
        (path / "config.json").write_text(json.dumps(spec))
    cri = "io.kubernetes.cri."
    pod = {cri + "sandbox-name": "web-0", cri + "sandbox-namespace": "shop", cri + "sandbox-id": SANDBOX}
    bundle("k8s.io", SANDBOX, pod | {cri + "container-type": "sandbox"})
    bundle("k8s.io", NGINX, pod | {cri + "container-type": "container", cri + "container-name": "nginx"})
    bundle("default", "web", {})


def check(binary):
    """What is wrong with the commands that can run anywhere, and with the lists; and how many commands were run."""
    failures, ran = unlisted(), 0
    with tempfile.TemporaryDirectory(prefix="kata-docs.") as scratch:
        scratch = Path(scratch)
        state = scratch / "state"
        make_node(state)
        variables = environment(scratch, binary, state)
        for place, command, expected in console([""]):
            said = run(command, scratch, variables).replace(str(state), "/run/containerd")
            ran += 1
            if not re.fullmatch(pattern(expected), said):
                failures.append(differs(place, command, expected, said))
        for place, command in inline():
            said = run(f"timeout 2 {command}", scratch, variables)
            ran += 1
            if said.endswith(("(exit status 2)\n", "(exit status 127)\n")):
                failures.append(differs(place, command, ["nothing about a wrong command line"], said))
    return failures, ran


def inline():
    """(place, command) of the commands in running text that name no placeholder, and are this program's."""
    for page in pages():
        text = re.sub(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", "", page.read_text(), flags=re.S | re.M)
        for command in re.findall(r"`(kata-runtime [a-z-][^`]*)`", text):
            # A single word is a command's name, or that of one of Kata's own.
            if len(command.split()) > 2 and not re.search(r"[A-Z…|<]", command):
                yield str(page.relative_to(ROOT)), command


def unlisted():
    """Blocks of an unknown kind, commands that nothing runs, and entries of ELSEWHERE that are not true."""
    failures, seen = [], set()
    run_in_blocks = {command for _, command, _ in console(KINDS)}
    for page in pages():
        for number, info, lines in blocks(page.read_text()):
            place = f"{page.relative_to(ROOT)}:{number}"
            word, _, kind = info.partition(" ")
            if word == "console" and kind not in KINDS:
                failures.append(f"{place}: blocks are console, {', '.join('console ' + k for k in KINDS if k)}, and not {info!r}")
            if word not in ("", "text") or page.name == "commands.md":
                continue
            for line in re.sub(r" *\\\n *", " ", "\n".join(lines)).split("\n"):
                found = PROGRAM.match(line)
                if found is None:
                    continue
                # Behind two blanks is what it does.
                command = found.group().rstrip()
                rest = re.split(r" {2,}", line[found.end():])[0].split(" | ")[0]
                command = f"{command} {rest}".rstrip() if len(found.group()) - len(command) < 2 or "=" in rest else command
                if SYNOPSIS.search(command):
                    continue
                seen.add(command)
                if command not in ELSEWHERE and command not in run_in_blocks:
                    failures.append(f"{place}: {command!r} is in no console block, and not in ELSEWHERE of docs/commands.py")
    for command, where in ELSEWHERE.items():
        if command not in seen:
            failures.append(f"docs/commands.py: no page has {command!r}")
        if isinstance(where, tuple) and where[1] not in (ROOT / where[0]).read_text():
            failures.append(f"docs/commands.py: {where[0]} has no {where[1]!r}, which {command!r} is said to be run by")
    return failures


def check_node(binary, directory, stage):
    state, own = f"{directory}/state", "mine-" + directory.rpartition(".")[2]
    failures, ran = [], 0
    with tempfile.TemporaryDirectory(prefix="kata-docs.") as scratch:
        scratch = Path(scratch)
        variables = environment(scratch, binary, state) | {"CONTAINERD_ADDRESS": f"{directory}/containerd.sock", "TERM": "xterm"}
        for place, command, expected in console([stage]):
            # Ids are for once, and a minute is long.
            real = re.sub(r"\bmine\b", own, command)
            real = re.sub(r"--interval \w+", "--interval 200ms", real)
            if real == "kata-runtime top":
                real = "(sleep 1; printf q) | script --quiet --return --command 'kata-runtime top' /dev/null"
            elif "--interval" in real and "--summary" not in real and "|" not in real:
                # A stream.
                real = f"timeout --preserve-status --signal INT 1 {real}"
            said = run(real, scratch, variables).replace(state, "/run/containerd").replace(own, "mine")
            ran += 1
            right = alike(expected, said) if expected else "(exit status" not in said
            if not right:
                failures.append(differs(place, command, expected or ["anything, with exit status 0"], said))
    return failures, ran


def check_demo(output):
    """Compares with what examples/demo.sh printed: ids have a number behind them, and its state directory is its own."""
    text = re.sub(r"\b(web|pod|app|cart|till)-\d{9,}", r"\1", output.read_text())
    text = re.sub(r" --state /tmp/kata-demo\.\w+/state", "", text)
    text = re.sub(r"/tmp/kata-demo\.\w+/state", "/run/containerd", text)
    shown = {}
    for part in re.split(r"\n\n(?=\$ |# )", text):
        if part.startswith("$ "):
            command, _, said = part[2:].partition("\n")
            shown.setdefault(shape(command), []).append(said)
    failures, ran = [], 0
    for place, command, expected in console(["demo"]):
        said = shown.get(shape(command), [])
        ran += 1
        if not any(alike(expected, one) for one in said):
            failures.append(differs(place, command, expected, "\n--- or\n".join(said) or "it is not in the demo"))
    return failures, ran


if __name__ == "__main__":
    if sys.argv[1] == "--node":
        failures, ran = check_node(*sys.argv[2:5])
    else:
        failures, ran = check_demo(Path(sys.argv[2]))
    for failure in failures:
        print(f"docs: {failure}", file=sys.stderr)
    print(f"docs: {ran} commands ({' '.join(sys.argv[4:]) or 'demo'}), of which {len(failures)} print something else")
    sys.exit(1 if failures else 0)
