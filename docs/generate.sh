#!/usr/bin/env bash
# Writes docs/reference/commands.md from the binary's --help, and docs/reference/metrics.md from the exporter's sources and
# a page that Kata sent. Arguments: the binary (default: the one of `cargo build`), and another directory to write to.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/kata-runtime}")
to=${2:-docs/reference}
unset CONTAINERD_NAMESPACE
export COLUMNS=100

help() {
    "$binary" "$@" --help </dev/null 2>&1 | sed 's/[[:space:]]*$//'
}

{
    echo "# Commands and options"
    echo
    echo "What \`kata-runtime --help\` and each command's \`--help\` print. Made by \`docs/generate.sh\`."
    echo
    echo "Durations are Go's: \`500ms\`, \`3s\`, \`1.5s\`, \`1h2m\`. The options of every command are said once, with the first."
    printf '\n## kata-runtime\n\n```text\n%s\n```\n' "$(help)"
    for command in events list metrics monitor top completion; do
        # Without what all commands have.
        text=$(help "$command" | awk '
            /^Options of every command:/ { skip = 1; next }
            /^Exit status:/ { skip = 1; next }
            skip && /^[^ ]/ { skip = 0 }
            !skip { print }' | cat -s)
        printf '\n## %s\n\n```text\n%s\n```\n' "$command" "$text"
    done
} >"$to/commands.md"

python3 docs/metrics.py >"$to/metrics.md"
