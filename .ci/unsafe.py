#!/usr/bin/env python3
"""Checks unsafe code: only in the files that SECURITY.md names, each block with a SAFETY comment above it."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# How far above a block its comment may begin.
LINES = 4


def without_text(line):
    """A line of Rust without string literals and comments."""
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', line).split("//")[0]


def main():
    section = (ROOT / "SECURITY.md").read_text().split("### Unsafe code", 1)[1]
    named = set(re.findall(r"^\| `([^`]+\.rs)` \|", section, re.M))
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--", "*.rs"], capture_output=True, check=True, text=True)
    failures, used = [], set()
    for name in filter(None, listed.stdout.split("\0")):
        lines = (ROOT / name).read_text().splitlines()
        for number, line in enumerate(lines):
            code = without_text(line)
            if not re.search(r"\bunsafe\b", code):
                continue
            used.add(name)
            # A declaration of what C has is checked where it is used.
            if re.search(r"\bunsafe (extern|fn)\b", code):
                continue
            if not any("SAFETY:" in above for above in lines[max(0, number - LINES):number + 1]):
                failures.append(f"{name}:{number + 1}: unsafe without a SAFETY comment above it")
    failures += [f"{name}: has unsafe code, and is not in SECURITY.md's list" for name in sorted(used - named)]
    failures += [f"{name}: is in SECURITY.md's list, and has no unsafe code" for name in sorted(named - used)]
    for failure in failures:
        print(f"unsafe: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
