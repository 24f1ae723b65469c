#!/usr/bin/env bash
# For the scripts in this directory and benches/harm.sh: a node with real containers of its own. Source it, then call
# node_start; everything is ended on exit, whatever happens.
#
# KATA_RUNTIME names the program to test, SHIMS the directory of containerd-shim-test-sandbox-v2; both are the debug
# build's by default.
set -euo pipefail
if [ -z "${NODE_ALONE:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "$0: only root can run containers" >&2; exit 1; }
    # Kata's directories are one for the whole machine. Here they are our own, whatever else runs on it.
    NODE_ALONE=1 exec unshare --mount --propagation private sh -ec 'mkdir -p /run/vc /run/kata
        mount -t tmpfs none /run/vc; mount -t tmpfs none /run/kata; exec "$@"' sh bash "$(realpath "$0")" "$@"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/lib/containerd.sh

target=${CARGO_TARGET_DIR:-target}
KATA_RUNTIME=$(realpath -m "${KATA_RUNTIME:-$target/debug/kata-runtime}")
SHIMS=$(realpath -m "${SHIMS:-$target/debug}")
export KATA_RUNTIME SHIMS
# The namespace of all containers here.
NS=faults
# What was started in the background, to be ended with the rest.
started=()
dir=

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

node_end() {
    local pid status=$?
    trap - EXIT INT TERM
    for pid in "${started[@]}"; do
        kill -CONT "$pid" 2>/dev/null || true
        ctd_end "$pid"
    done
    # A program whose tracer ended before it goes on by itself; only ours has this node's state directory in its arguments.
    local own
    if [ -n "$dir" ]; then
        for own in /proc/[0-9]*; do
            if [ "$(readlink "$own/exe" 2>/dev/null)" = "$(realpath "$KATA_RUNTIME")" ] &&
                tr '\0' ' ' <"$own/cmdline" 2>/dev/null | grep -qF -- "$dir/state"; then
                kill -KILL "${own##*/}" 2>/dev/null || true
            fi
        done
        ctd_clean "$dir"
    fi
    exit "$status"
}

# node_start PACKAGE...: checks what is needed, and starts a private containerd with the image. Leaves its directory in
# $dir, its state directory in $state.
node_start() {
    [ -x "$KATA_RUNTIME" ] || die "$KATA_RUNTIME is missing: cargo build, or set KATA_RUNTIME"
    [ -x "$SHIMS/containerd-shim-test-sandbox-v2" ] ||
        die "$SHIMS/containerd-shim-test-sandbox-v2 is missing: cargo build -p sandbox-shim, or set SHIMS"
    ctd_need containerd=containerd runc=runc busybox=busybox-static python3=python3 "$@"
    dir=$(mktemp -d /tmp/krf.XXXX)
    trap node_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 141' PIPE
    state=$dir/state
    ctd_image "$dir/image.tar"
    ctd_start "$dir" "$(dirname "$(command -v containerd)")" "$SHIMS"
    ctd_ctr "$dir" --namespace "$NS" images import "$dir/image.tar" >/dev/null
}

# The containers that most scripts want: one of runc, and a pod of the test shim with a guest's agent. Leaves their ids
# in $plain, $sandbox and $app.
node_containers() {
    plain=$(ctd_id plain) sandbox=$(ctd_id pod) app=$(ctd_id app)
    ctd_run "$dir" "$NS" "$plain" --memory-limit 67108864 -- sleep 1000000
    ctd_run_sandbox "$dir" "$NS" "$sandbox" --annotation io.kata-runtime.test.agent=yes \
        --annotation io.kubernetes.cri.sandbox-namespace=shop --annotation io.kubernetes.cri.sandbox-name=web-0 \
        -- sleep 1000000
    ctd_run_child "$dir" "$NS" "$app" "$sandbox" --annotation io.kubernetes.cri.container-name=nginx -- sleep 1000000
}

# node_background LOG COMMAND...: starts a command that is ended with the rest. Leaves its process id in $pid.
node_background() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    started=("$pid" "${started[@]}")
}

# node_listening LOG: waits until an exporter says where it listens, and prints that: 127.0.0.1:PORT.
node_listening() {
    local place
    for _ in $(seq 100); do
        place=$(sed -nE 's#^listening on http://([0-9.:]+)/.*#\1#p' "$1")
        [ -z "$place" ] || { echo "$place"; return 0; }
        sleep 0.1
    done
    echo "the exporter did not come up:" >&2
    tail -n 5 "$1" >&2
    return 1
}
