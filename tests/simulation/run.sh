#!/usr/bin/env bash
# tests/simulation/run.sh [FIRST [COUNT [WHAT]]]: runs COUNT seeds (a million) from FIRST (1) on, and adds a line to the
# record in docs/simulation.md. WHAT is simulated: survey (the default), exporter (its gathering) or events (its
# followers). On one idle core a million seeds of the survey take about an hour.
set -euo pipefail
cd "$(dirname "$0")/../.."
first=${1:-1} count=${2:-1000000} what=${3:-survey}
case $what in
survey)
    nice cargo build --quiet --profile proof --package simulation
    simulation=("${CARGO_TARGET_DIR:-target}/proof/simulation" "$first" "$count")
    ;;
exporter | events)
    # The tests of the program, without what they do not need.
    tests=(cargo test --quiet --profile proof --no-default-features --bin kata-runtime)
    nice "${tests[@]}" --no-run
    export SIMULATION_SEEDS="$first $count"
    simulation=("${tests[@]}" -- --nocapture "$what::tests::promises_are_kept")
    ;;
*)
    echo "tests/simulation/run.sh: $what is none of survey, exporter, events" >&2
    exit 2
    ;;
esac
commit=$(git rev-parse --short HEAD)
output=$(nice "${simulation[@]}") || status=$?
echo "$output"
read -r hours events broken < <(echo "$output" |
    sed -n 's/^seeds .*: \([0-9]*\) hours simulated in .*, \([0-9]*\) events, \([0-9]*\) seeds with findings$/\1 \2 \3/p')
echo "| $(date -u +%F) | $what | $commit | $first to $((first + count - 1)) | $hours | $events | $broken |" >>docs/simulation.md
exit "${status:-0}"
