#!/usr/bin/env bash
# Makes docs/top.svg: `kata-runtime top` in a real terminal, on real containers of a private containerd. As root.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/lib/containerd.sh

COLUMNS=112 LINES=30
# So long, for the graph to have something to show.
SECONDS_OF_PAST=${1:-45}

if [ "$(id -u)" != 0 ]; then
    echo "docs/screenshot/top.sh: only root can run containers" >&2
    exit 1
fi
ctd_need containerd=containerd runc=runc busybox=busybox-static tmux=tmux
cargo build --quiet --workspace --bins
target=${CARGO_TARGET_DIR:-target}/debug

work=$(mktemp -d /tmp/krs.XXXXXX)
dir=$work/c
stopped=
cleanup() {
    [ -z "$stopped" ] || kill -CONT "$stopped" 2>/dev/null || true
    tmux -S "$work/tmux" kill-server 2>/dev/null || true
    ctd_clean "$dir"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ctd_start "$dir" "$(dirname "$(command -v containerd)")" "$(realpath "$target")"
ctd_image "$work/image.tar"
for namespace in k8s.io moby; do
    ctd_ctr "$dir" --namespace $namespace images import "$work/image.tar" >/dev/null
done

# pod NAMESPACE NAME: a sandbox; its id is in $sandbox.
pod() {
    sandbox=$(ctd_id shot)
    pod_names=(--annotation io.kubernetes.cri.sandbox-namespace="$1" --annotation io.kubernetes.cri.sandbox-name="$2")
    ctd_run_sandbox "$dir" k8s.io "$sandbox" "${pod_names[@]}" -- sleep 100000
}

# container NAME MEMORY-LIMIT-IN-MIB SCRIPT OPTION...: a container in the last pod.
container() {
    local name=$1 limit=$2 script=$3
    shift 3
    ctd_run_child "$dir" k8s.io "$(ctd_id shot)" "$sandbox" "${pod_names[@]}" \
        --annotation io.kubernetes.cri.container-name="$name" --memory-limit $((limit << 20)) "$@" -- sh -c "$script"
}

# What keeps so many MiB of memory, by a file in memory; there is room for 64.
keep() {
    echo "dd if=/dev/zero of=/dev/shm/kept bs=1M count=$1 2>/dev/null;"
}
busy='while :; do :; done'

pod shop web-7d4b9c6f5-x2x8k
container nginx 64 "$(keep 40) while :; do dd if=/dev/zero of=/dev/null bs=1M count=\$((\$(date +%s) % 23 * 40)) 2>/dev/null; sleep 0.2; done"
container metrics 32 "$(keep 5) while :; do sleep 0.2; done"
pod shop db-0
container postgres 64 "$(keep 60) sleep 100000"
pod batch thumbnails-28411
container worker 48 "$(keep 12) $busy" --cpu-quota 35000 --cpu-period 100000
pod batch import-28409
container loader 24 "while :; do dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; sleep 2; done"
pod shop cart-5f6d7-qq9zn
container cart 64 'sleep 100000'
hung=$sandbox
ctd_run "$dir" moby "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" -- sh -c "while :; do sleep 0.05; done"

tmux -S "$work/tmux" -f /dev/null -u new-session -d -x $COLUMNS -y $LINES \
    "env LC_ALL=C.UTF-8 $target/kata-runtime --state $dir/state --timeout 2s top --interval 1s"
sleep "$SECONDS_OF_PAST"
# One shim stops answering.
for pid in $(ctd_shims "$dir"); do
    if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "-id $hung "; then
        stopped=$pid
        kill -STOP "$pid"
    fi
done
sleep 8
tmux -S "$work/tmux" capture-pane -p -e >"$work/capture"
mkdir -p docs
"$target/terminal-svg" $COLUMNS <"$work/capture" >"$work/top.svg"
mv "$work/top.svg" docs/top.svg
echo "docs/top.svg is new"
