#!/usr/bin/env bash
# Runs every test, from a fresh clone, on a machine with Rust and Debian: says what it installs, fetches the
# containerds of newer Debian suites beside the installed one, and tests with each. Arguments go to the test runner
# (for example a filter). As root: only root can run containers. What plain `cargo test` skips where something is
# missing fails here.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib/containerd.sh

if [ "$(id -u)" != 0 ]; then
    echo "tests/run.sh: only root can run containers" >&2
    exit 1
fi
if ! command -v cargo >/dev/null; then
    echo "tests/run.sh: Rust is missing: see https://rustup.rs" >&2
    exit 1
fi
ctd_need cc=gcc python3=python3 containerd=containerd runc=runc busybox=busybox-static curl=curl promtool=prometheus ip=iproute2 tmux=tmux openssl=openssl qemu-system-x86_64=qemu-system-x86 chromium=chromium

work=$(mktemp -d /tmp/krt.XXXXXX)
cleanup() {
    # A test cleans up after itself; this is for one that was killed.
    for dir in "$work"/kr*; do
        ctd_clean "$dir"
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ -n "${KATA_RUNTIME_TEST_CONTAINERDS:-}" ] ||
    KATA_RUNTIME_TEST_CONTAINERDS=$(ctd_versions "${CARGO_TARGET_DIR:-target}/containerd")
KATA_RUNTIME_TEST_IMAGE=$work/busybox.tar
KATA_RUNTIME_TEST_DIR=$work
KATA_RUNTIME_TEST_SKIP_NOTHING=1
export KATA_RUNTIME_TEST_CONTAINERDS KATA_RUNTIME_TEST_IMAGE KATA_RUNTIME_TEST_DIR KATA_RUNTIME_TEST_SKIP_NOTHING
ctd_image "$KATA_RUNTIME_TEST_IMAGE"
echo "Testing with:"
for bin in ${KATA_RUNTIME_TEST_CONTAINERDS//:/ }; do
    echo "    $("$bin/containerd" --version)"
done

status=0
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --no-fail-fast "$@" </dev/null || status=$?
    # nextest does not run the examples in the documentation; a filter is not meant for them.
    [ $# -gt 0 ] || cargo test --workspace --doc </dev/null || status=$?
else
    cargo test --workspace --no-fail-fast "$@" </dev/null || status=$?
fi
if [ $status = 0 ]; then
    echo "tests/run.sh: everything passed"
else
    echo "tests/run.sh: FAILED (see above)"
fi
exit $status
