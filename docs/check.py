"""Checks the documentation; see check.sh. Arguments: the binary.

Completeness: every field that is serialized as JSON is in docs/reference/json.md, every reason of the exporter in
docs/reference/errors.md, every column in the page of a command that has it.

Links: every relative link in a Markdown file leads to a file, and its anchor to a heading there. Every docs/… path named
anywhere in the repository exists. Every page below docs/ can be reached from docs/README.md.

Commands: in a block ```console, each line that starts with `$ ` is run, and the lines below it are what it has to print:
stderr's with `stderr: ` before them, then `(exit status N)` unless it is 0. `…` stands for any text, and a line of it alone
for any lines. They run before a node made here: a state directory with the pod shop/web-0 (a sandbox and the container
nginx) whose shim is dead, and the plain container `web`, likewise.

Blocks ```console demo are from examples/demo.sh, which runs them on real containers: here it is checked that it has those
commands. Blocks ```console node need a node that this cannot make. Their commands are run before this one, and have to be valid.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
SANDBOX = "92f5bfc483678d9b06199cc2772de204f5cc005e4cc810cb4e98c145ecc8af9c"
NGINX = "f9b33532563a0f8ce1f3bb3af1a14f83b5d58a1ff5ad8fbc2a1b4b8a1d83a1f0"
failures = []


def fail(where, what):
    failures.append(f"{where}: {what}")


def tracked():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            capture_output=True)
    names = listed.stdout.decode().split("\0")
    if listed.returncode:
        # Not a clone: a copy of its files.
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.relative_to(ROOT).parts[0] != "target"]
    return sorted(name for name in names if name and (ROOT / name).is_file())


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


def prose(text):
    """The text without what is code."""
    text = re.sub(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", "", text, flags=re.S | re.M)
    seen = {}
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", text, flags=re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        seen[anchor] = seen.get(anchor, -1) + 1
        yield anchor if seen[anchor] == 0 else f"{anchor}-{seen[anchor]}"


def links(text):
    return re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", prose(text))


def check_links(files):
    pages = {name: (ROOT / name).read_text() for name in files if name.endswith(".md") and "/fixtures/" not in name}
    checked, leads_to = 0, {}
    for name, text in pages.items():
        leads_to[name] = set()
        for link in links(text):
            if re.match(r"[a-z]+:", link):
                continue
            checked += 1
            path, _, anchor = unquote(link).partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            target = Path(os.path.normpath(target))
            if not target.exists():
                fail(name, f"the link {link} leads nowhere")
                continue
            there = os.path.relpath(target, ROOT)
            leads_to[name].add(there)
            if anchor and there in pages and anchor not in set(anchors(pages[there])):
                fail(name, f"{there} has no heading for the link {link}")
    reached, todo = set(), ["docs/README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            todo.extend(leads_to.get(page, ()))
    for name in pages:
        if name.startswith("docs/") and name not in reached:
            fail(name, "docs/README.md does not lead to it")
    return checked


# Other projects' pages, named with their owner.
FOREIGN = {"docs/vsock.md"}


def check_paths(files):
    for name in files:
        if "/fixtures/" in name or not (ROOT / name).stat().st_size < 1 << 20:
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        for path in re.findall(r"(?<![\w/.-])(?:\.\./)*(docs/[\w./-]+\.(?:md|svg|png|sh|py))", text):
            if path not in FOREIGN and not (ROOT / path).exists():
                fail(name, f"{path} does not exist")


def serialized(path):
    """The JSON keys of a source file's structs."""
    text = (ROOT / path).read_text()
    structs = re.findall(r"((?:#\[[^\n]*\]\n)+)(?:pub )?struct [^{;\n]*\{(.*?)\n\}", text, flags=re.S)
    for attributes, body in structs:
        if "Serialize" not in attributes:
            continue
        for serde, name in re.findall(r"((?:    #\[serde\(.*?\)\]\n)*)    (?:pub )?(?:r#)?(\w+): ", body, flags=re.S):
            if "skip)" in serde:
                continue
            renamed = re.search(r"rename = \"(\w+)\"", serde)
            if renamed:
                yield renamed.group(1)
            elif "camelCase" in attributes:
                yield re.sub(r"_(\w)", lambda letter: letter.group(1).upper(), name)
            else:
                yield name


JSON_SOURCES = """
    crates/shimstat/src/stats/model.rs src/commands/events/show.rs src/commands/list/row.rs src/commands/list/places.rs
    src/commands/metrics/summary/model.rs src/commands/metrics/summary/vm.rs src/guest_side.rs""".split()


def check_completeness():
    def page(name):
        return (ROOT / "docs/reference" / name).read_text()

    documented = set(re.findall(r"\w+", page("json.md")))
    for path in JSON_SOURCES:
        keys = list(serialized(path))
        if not keys:
            fail(path, "no struct with JSON fields was found")
        for key in keys:
            if key not in documented:
                fail("docs/reference/json.md", f"the field {key} of {path} is missing")
    for reason in re.findall(r"Self::\w+ => \"(\w+)\"", (ROOT / "src/exporter/reason.rs").read_text()):
        if f"| `{reason}` |" not in page("errors.md"):
            fail("docs/reference/errors.md", f"the reason {reason} is missing")
    columns = page("list.md") + page("events.md") + page("top.md")
    for heading in re.findall(r"(?:Field::\w+|Narrow::new)\(\s*\"([^\"]+)\"", (ROOT / "src/show/fields.rs").read_text()):
        if heading not in columns:
            fail("docs/reference", f"the column {heading} is in no page")


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


def pattern(expected):
    """A regular expression of what a command has to print."""
    if not expected:
        return ""
    parts = []
    for line in expected:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(re.escape(piece) for piece in line.split("…")) + r" *\n")
    return "".join(parts)


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


def run_commands(files, binary):
    counts = {"run": 0, "demo": 0, "node": 0}
    demo = (ROOT / "examples/demo.sh").read_text().replace('\\"', '"')
    with tempfile.TemporaryDirectory(prefix="kata-docs.") as scratch:
        scratch = Path(scratch)
        make_node(scratch / "state")
        (scratch / "bin").mkdir()
        wrapper = scratch / "bin" / "kata-runtime"
        wrapper.write_text(f'#!/bin/sh\nexec "{binary}" --state "{scratch}/state" "$@"\n')
        wrapper.chmod(0o755)
        environment = {"PATH": f"{scratch}/bin:{os.environ['PATH']}", "HOME": str(scratch), "LC_ALL": "C.UTF-8"}
        for name in files:
            if name != "README.md" and not (name.startswith("docs/") and name.endswith(".md")):
                continue
            for line, info, lines in blocks((ROOT / name).read_text()):
                kind, _, where = info.partition(" ")
                if kind != "console":
                    continue
                if where not in ("", "demo", "node"):
                    fail(f"{name}:{line}", f"blocks are console, console demo or console node, and not {info!r}")
                for command, expected in commands(lines):
                    counts[where or "run"] += 1
                    if where == "demo" and not is_in_demo(command, demo):
                        fail(f"{name}:{line}", f"examples/demo.sh does not run: {command}")
                    if where == "node" and not is_valid(command, scratch, environment):
                        fail(f"{name}:{line}", f"is no valid command line: {command}")
                    if where:
                        continue
                    done = run(command, scratch, environment)
                    said = done.stdout.decode(errors="replace")
                    said += "".join(f"stderr: {line}\n" for line in done.stderr.decode(errors="replace").splitlines())
                    said += f"(exit status {done.returncode})\n" if done.returncode else ""
                    said = said.replace(f"{scratch}/state", "/run/containerd")
                    if not re.fullmatch(pattern(expected), said):
                        fail(f"{name}:{line}", f"$ {command}\n--- should print\n" + "\n".join(expected) + f"\n--- prints\n{said}")
    return counts


def run(command, directory, environment, seconds=30):
    return subprocess.run(["bash", "-c", command], cwd=directory, env=environment, timeout=seconds,
                          stdin=subprocess.DEVNULL, capture_output=True)


def is_valid(command, directory, environment):
    """Whether a command of ours is not refused: exit status 2. One that goes on is not."""
    try:
        return run(command.partition(" | ")[0], directory, environment, seconds=1).returncode not in (2, 127)
    except subprocess.TimeoutExpired:
        return True


def is_in_demo(command, demo):
    """Whether the demo has a command, in which ids have a number behind them and options go before."""
    first, bar, rest = command.partition(" | ")
    if first.startswith("kata-runtime"):
        first = re.sub(r"^kata-runtime", "$kr", first)
        first = re.sub(r"(?<=[ ])(web|pod|app|cart|till)(?=$| )", r"$\1", first)
        return first + bar + rest in demo or first in demo and rest in demo
    # Prometheus is asked by a variable.
    query = re.search(r"'query=.*", command)
    if query is None:
        return False
    start = re.match(r"'query=([a-z_]+)", query.group())
    return start is not None and start.group(1) in demo and command.rpartition(" | ")[2] in demo


files = tracked()
checked = check_links(files)
check_paths(files)
check_completeness()
counts = run_commands(files, sys.argv[1])
for failure in failures:
    print(f"docs/check.sh: {failure}", file=sys.stderr)
if failures:
    sys.exit(1)
print(f"docs/check.sh: {checked} links lead somewhere; {counts['run']} commands ran and printed what the documents say; "
      f"{counts['demo']} are run by examples/demo.sh; {counts['node']} need a node of their own")
