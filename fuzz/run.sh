#!/usr/bin/env bash
# fuzz/run.sh SECONDS [TARGET...]: runs each fuzz target (or those named) for a time, and adds its executions and coverage
# to docs/fuzzing.md. Needs the nightly compiler and cargo-fuzz; says so where they are missing.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz/run.sh: nothing was run: the nightly compiler is missing (rustup toolchain install nightly)" >&2
    exit 77
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz/run.sh: nothing was run: cargo-fuzz is missing (cargo install cargo-fuzz)" >&2
    exit 77
fi
# The address sanitizer would find faults of unsafe code, of which the decoders have none, and is three times slower.
nice cargo +nightly fuzz build --sanitizer none
binaries=target/x86_64-unknown-linux-gnu/release
python3 seeds.py corpus
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
status=0
for target in "$@"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=artifacts/$target/log
    # What is short by nature is tried short.
    case $target in
    go_duration) length=40 ;;
    ids_and_names) length=100 ;;
    terminal_input) length=64 ;;
    *) length=4096 ;;
    esac
    nice -n "${FUZZ_NICE:-15}" "$binaries/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" \
        -max_len=$length -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -close_fd_mask=0 >"$log" 2>&1 || {
        echo "fuzz/run.sh: $target FAILED: see fuzz/$log" >&2
        status=1
    }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -d' ' -f2)
    features=$(grep -o 'ft: [0-9]*' "$log" | tail -1 | cut -d' ' -f2)
    failed=$(find "artifacts/$target" -name 'crash-*' -o -name 'timeout-*' -o -name 'oom-*' | wc -l)
    echo "| $(date -u +%F) | \`$target\` | $seconds s | ${runs:-?} | ${covered:-?} | ${features:-?} | $failed |" | tee -a ../docs/fuzzing.md
done
exit $status
