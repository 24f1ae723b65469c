"""Checks the documentation; see check.sh. Arguments: the binary.

Completeness: every field that is serialized as JSON is in docs/reference/json.md, every reason of the exporter in
docs/reference/errors.md, every column in the page of a command that has it.

Links: every relative link in a Markdown file leads to a file, and its anchor to a heading there. Every docs/… path named
anywhere in the repository exists. Every page below docs/ can be reached from docs/README.md.

Commands: see commands.py.
"""
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import commands

ROOT = Path(__file__).resolve().parent.parent
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
    for row in re.findall(r"^\|.*\|$", page("errors.md").partition("## Reasons")[0], flags=re.M):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        if len(cells) == 3 and not cells[2]:
            fail("docs/reference/errors.md", f"there is nothing to do about {cells[0]}")
    columns = page("list.md") + page("events.md") + page("top.md")
    for heading in re.findall(r"(?:Field::\w+|Narrow::new)\(\s*\"([^\"]+)\"", (ROOT / "src/show/fields.rs").read_text()):
        if heading not in columns:
            fail("docs/reference", f"the column {heading} is in no page")


files = tracked()
checked = check_links(files)
check_paths(files)
check_completeness()
wrong, ran = commands.check(sys.argv[1])
failures += wrong
for failure in failures:
    print(f"docs/check.sh: {failure}", file=sys.stderr)
if failures:
    sys.exit(1)
print(f"docs/check.sh: {checked} links lead somewhere; {ran} commands ran and printed what the documents say")
