#!/usr/bin/env bash
# What we cost others: the latency of `ctr task kill` and of creating a container, p50 and p99, while `events --all
# --interval 1s` runs and `monitor` is scraped each second, and without both, in turns. On runc, and on the shim of the
# tests, whose Stats holds a lock while a guest hangs as Kata's Go shim does, with a guest that is well and one that hangs.
# Goal: no more than 10 ms at p99.
#
#   benches/harm.sh [ROUNDS [KILLS [CREATES]]]      5 rounds of 40 kills and 10 creations are the default: 5 minutes
#
# KATA_RUNTIME and SHIMS name other builds than target/release.
export KATA_RUNTIME=${KATA_RUNTIME:-${CARGO_TARGET_DIR:-target}/release/kata-runtime}
export SHIMS=${SHIMS:-${CARGO_TARGET_DIR:-target}/release}
. "$(dirname "$0")/../tests/faults/lib.sh"
node_start
node_containers
hung=$(ctd_id hung) stuck=$(ctd_id stuck)
ctd_run_sandbox "$dir" "$NS" "$hung" --annotation io.kata-runtime.test.agent=yes -- sleep 1000000
ctd_run_child "$dir" "$NS" "$stuck" "$hung" -- sleep 1000000
echo hang >"/run/vc/sbs/$hung/agent"
echo "load: $(cut -d' ' -f1-3 /proc/loadavg) on $(nproc) processors; $("$KATA_RUNTIME" --version)"
STATE=$state NAMESPACE=$NS CTR="$(cat "$dir/bin")/ctr --address $dir/containerd.sock --namespace $NS" IDS=$dir/ids \
    IMAGE=$CTD_IMAGE PLAIN=$plain SANDBOX=$sandbox APP=$app STUCK=$stuck python3 benches/harm.py "$@"
