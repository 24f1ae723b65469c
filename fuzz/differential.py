#!/usr/bin/env python3
"""Compares promtext with two other readers, on all that the fuzz target metrics_text has found: that of Prometheus's Python
client (pip install prometheus_client), and Prometheus's own text parser (promtool): fuzz/differential.py [DIRECTORY]

promtool has to read each page that promtext writes; it does not tell what it has read, so the numbers are the client's.
Each file is merged alone. Whatever the page has, the client must read in the same way from the file itself, line by line;
and what the client reads in the file and the page lacks is counted, with the reasons for which promtext may drop it."""

import collections
import math
import pathlib
import re
import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families as parse

HERE = pathlib.Path(__file__).resolve().parent
DIRECTORY = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "corpus/metrics_text")
ROOT = HERE.parent
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
NO_COMMA = re.compile(rb'^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)[^\n]*"[ \t]*[a-zA-Z_]\w*[ \t]*=', re.M)
TIGHT = re.compile(rb"^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)[-+.]", re.M)
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def same(one, other):
    return one == other or (math.isnan(one) and math.isnan(other))


def samples(line):
    """Line by line: with a TYPE before it, the client gives a counter another name."""
    for family in parse(line):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if value and key != "file"}
            yield (sample.name, tuple(sorted(labels.items()))), sample.value


subprocess.run(["cargo", "build", "--quiet", "--package", "promtext", "--example", "merge"], cwd=ROOT, check=True)
merge = ROOT / "target/debug/examples/merge"
files = read = refused = 0
dropped, faults = collections.Counter(), []
scratch = HERE / "artifacts/differential"
scratch.parent.mkdir(exist_ok=True)
for path in sorted(DIRECTORY.iterdir()):
    body = path.read_bytes()[1:]
    scratch.write_bytes(body)
    page = subprocess.run([merge, scratch], stdout=subprocess.PIPE, check=True).stdout.decode()
    files += 1
    # 0 and 3: it was read, and there may be advice about names and help.
    promtool = subprocess.run(["promtool", "check", "metrics"], input=page.encode(), capture_output=True)
    if promtool.returncode not in (0, 3):
        faults.append(f"{path.name}: promtool does not read the page: {promtool.stderr.decode().strip()}")
    try:
        ours = [one for line in page.split("\n") if line and not line.startswith("#") for one in samples(line + "\n")]
    except Exception as error:
        faults.append(f"{path.name}: the client does not read the page: {error!r}")
        continue
    read += len(ours)
    if len({series for series, _ in ours}) != len(ours):
        faults.append(f"{path.name}: a series twice")
    theirs = collections.defaultdict(list)
    for line in body.split(b"\n"):
        try:
            for series, value in samples(line.decode() + "\n"):
                theirs[series].append(value)
        except Exception:
            refused += 1
    known = dict(ours)
    # Prometheus's own reader needs no blank between a name and a number, and no comma between labels; the client's does.
    tight = {match.group(1) for pattern in (TIGHT, NO_COMMA) for match in pattern.finditer(body)}
    for series, value in ours:
        if series[0].encode() in tight:
            dropped["no blank before a number or no comma between labels, which Prometheus reads and the client does not"] += 1
            continue
        # promtext renames a label `file` of the page itself, and puts a histogram's bounds in one form.
        if not any(same(value, their) for their in theirs[series]) and "exported_file" not in dict(series[1]) and "le" not in dict(series[1]):
            faults.append(f"{path.name}: {series} = {value} is not what the client reads: {theirs[series]}")
    for series, values in theirs.items():
        if series in known:
            continue
        name, labels = series
        if not NAME.match(name) or not all(LABEL.match(label) for label, _ in labels):
            dropped["we drop it: a name that is none"] += 1
        else:
            dropped["we drop it: the client is more lenient, or the family's type does not allow it"] += 1
print(f"{files} files, all pages read by promtool unless it says so below: {read} samples of ours read alike by the client; {refused} lines that it refuses")
for reason, count in dropped.items():
    print(f"{count} differ: {reason}")
for fault in faults[:20]:
    print("FAULT", fault)
print(f"{len(faults)} faults")
sys.exit(bool(faults))
