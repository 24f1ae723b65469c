#!/usr/bin/env bash
# Runs the documentation's commands that need a node, on pods and containers of a containerd of its own: those in blocks
# ```console node, and ```console node hung when something hangs (commands.py). As root, on Debian. Takes seconds; needs
# the program and the tests' shim: the argument is their directory, or that of `cargo build --workspace`.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib/containerd.sh
built=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug}")
ctd_need containerd=containerd runc=runc busybox=busybox-static python3=python3 script=bsdutils

dir=$(mktemp -d /tmp/kd.XXXX)
stopped=
cleanup() {
    [ -z "$stopped" ] || kill -CONT "$stopped" 2>/dev/null || true
    ctd_clean "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# By its name the tests' shim is taken for Kata's.
mkdir "$dir/shims"
ln -s "$built/containerd-shim-test-sandbox-v2" "$dir/shims/containerd-shim-kata-v2"
ctd_start "$dir" "$(dirname "$(command -v containerd)")" "$dir/shims"
ctd_image "$dir/busybox.tar"
for namespace in default k8s.io; do
    ctd_ctr "$dir" --namespace "$namespace" image import "$dir/busybox.tar" >/dev/null
done
ctd_ctr "$dir" image tag "$CTD_IMAGE" docker.io/library/busybox:latest >/dev/null

# id BEGINNING: an id that starts as in the documentation, and that nobody on this machine had before.
id() {
    echo "$1$(od -An -tx1 -N26 -w26 /dev/urandom | tr -d ' ')"
}
# container RUNTIME NAMESPACE/POD SANDBOX ID NAME [OPTION...]: one in a pod; the sandbox itself has no name.
container() {
    local runtime=$1 pod=$2 sandbox=$3 id=$4 name=$5 cri=io.kubernetes.cri type=sandbox
    shift 5
    [ -z "$name" ] || { type=container; set -- "$@" --annotation "$cri.container-name=$name"; }
    ctd_run "$dir" k8s.io "$id" --runtime "io.containerd.$runtime.v2" --annotation "$cri.container-type=$type" \
        --annotation "$cri.sandbox-id=$sandbox" --annotation "$cri.sandbox-namespace=${pod%/*}" \
        --annotation "$cri.sandbox-name=${pod#*/}" "$@" -- sleep 1000
}
web=$(id 92f5bfc48367) db=$(id 0b88bb7d9df8) other=$(id 9794d68819f1)
container kata shop/web-0 "$web" "$web" "" --annotation io.kata-runtime.test.agent=yes
container kata shop/web-0 "$web" "$(id f9b33532563a)" nginx
container kata shop/web-0 "$web" "$(id f81c85433b68)" log
container runc shop/db-0 "$db" "$db" ""
container runc shop/db-0 "$db" "$(id e0051068a574)" postgres
container runc test/web-0 "$other" "$other" ""
container runc test/web-0 "$other" "$(id f15cc6131bd4)" nginx
kata=$(id 65e7a235858e)
container kata default/kpod "$kata" "$kata" "" --annotation io.kata-runtime.test.agent=yes
container kata default/kpod "$kata" "$(id 7a90c3de15b2)" app
ctd_run "$dir" default "backup-$(date +%s)" -- sleep 1000

# For a container that the documentation's commands start.
echo "default mine-${dir##*.}" >>"$dir/ids"

status=0
stage() {
    python3 docs/commands.py --node "$built/kata-runtime" "$dir" "$1" || status=1
}
stage node

echo hang >"/run/vc/sbs/$web/agent"
for pid in $(ctd_shims "$dir"); do
    [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") != *" $db "* ]] || stopped=$pid
done
kill -STOP "$stopped"
stage "node hung"
exit $status
