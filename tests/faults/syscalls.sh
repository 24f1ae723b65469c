#!/usr/bin/env bash
# Makes every system call of every command fail once, and compares the answer with the undisturbed one: see
# tests/faults/syscalls.py, and docs/faults-syscalls.md for what came out.
#
#   tests/faults/syscalls.sh                     everything; writes target/faults-syscalls.md
#   tests/faults/syscalls.sh --quick             a sample, in half a minute
#   tests/faults/syscalls.sh --command list      one command
#
# Exits with 1 if a command crashed, hung, or gave a wrong or silently shorter answer with status 0.
. "$(dirname "$0")/lib.sh"
node_start strace=strace
node_containers
STATE=$state PLAIN=$plain SANDBOX=$sandbox APP=$app \
    python3 tests/faults/syscalls.py --record "$target/faults-syscalls.md" "$@"
