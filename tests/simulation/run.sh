#!/usr/bin/env bash
# tests/simulation/run.sh [FIRST [COUNT]]: runs COUNT seeds (a million) from FIRST (1) on, and adds a line to the record in
# docs/simulation.md. A million takes about an hour of one core.
set -euo pipefail
cd "$(dirname "$0")/../.."
first=${1:-1} count=${2:-1000000}
nice cargo build --quiet --profile proof --package simulation
output=$(nice "${CARGO_TARGET_DIR:-target}/proof/simulation" "$first" "$count") || status=$?
echo "$output"
read -r hours events broken < <(echo "$output" |
    sed -n 's/^seeds .*: \([0-9]*\) hours simulated in .*, \([0-9]*\) events, \([0-9]*\) seeds with findings$/\1 \2 \3/p')
echo "| $(date -u +%F) | $(git rev-parse --short HEAD) | $first to $((first + count - 1)) | $hours | $events | $broken |" >>docs/simulation.md
exit "${status:-0}"
