#!/usr/bin/env bash
# Checks the documentation: links and anchors, paths named elsewhere, the commands that can run anywhere (check.py says
# which), and that what docs/generate.sh makes is up to date. Takes seconds; needs python3, git and a built binary:
# the argument, or the one of `cargo build`.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/kata-runtime}")
if [ ! -x "$binary" ]; then
    echo "docs/check.sh: $binary is missing: run cargo build" >&2
    exit 1
fi
made=$(mktemp -d /tmp/kata-docs.XXXXXX)
trap 'rm -rf "$made"' EXIT
docs/generate.sh "$binary" "$made"
status=0
for page in "$made"/*; do
    if ! diff -u "docs/reference/${page##*/}" "$page"; then
        echo "docs/check.sh: docs/reference/${page##*/} is not up to date: run docs/generate.sh" >&2
        status=1
    fi
done
python3 docs/check.py "$binary" || status=1
exit $status
