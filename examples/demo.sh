#!/usr/bin/env bash
# Shows `kata-runtime` on real containers: a container of runc, and a pod (a sandbox and a container in it) of the
# example shim, which stands in for Kata. Needs root, Rust and Debian; everything else it installs, saying so, and
# all that it starts, it ends. Exits with an error if anything shown is not as it should be.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib/containerd.sh

if [ "$(id -u)" != 0 ]; then
    echo "examples/demo.sh: only root can run containers" >&2
    exit 1
fi
if ! command -v cargo >/dev/null; then
    echo "examples/demo.sh: Rust is missing: see https://rustup.rs" >&2
    exit 1
fi

say() {
    printf '\n# %s\n' "$*"
}

say "What this needs, and building it (a minute or two, the first time)"
ctd_need cc=gcc containerd=containerd runc=runc busybox=busybox-static jq=jq
cargo build --release --bin kata-runtime --example containerd-shim-sandbox-example-v2 </dev/null
target=$(realpath "${CARGO_TARGET_DIR:-target}")/release

dir=$(mktemp -d /tmp/kata-demo.XXXX)
trap 'ctd_clean "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export PATH=$target:$PATH

unexpected=0
# show STATUS PATTERN COMMAND: prints a command, runs it as a person would, and checks its exit status and that what
# it said matches a pattern. Where both are given, a line of stderr is marked as such.
show() {
    local expected=$1 pattern=$2 command=$3 status=0
    printf '\n$ %s\n' "$command"
    timeout 30 bash -c "$command" >"$dir/stdout" 2>"$dir/stderr" </dev/null || status=$?
    cat "$dir/stdout"
    sed 's/^/stderr: /' "$dir/stderr"
    [ "$status" = 0 ] || echo "(exit status $status)"
    if [ "$status" != "$expected" ] || ! cat "$dir/stdout" "$dir/stderr" | grep -qE -- "$pattern"; then
        echo "*** UNEXPECTED: should have had exit status $expected, and something that matches: $pattern"
        unexpected=$((unexpected + 1))
    fi
}

say "A containerd of our own, with everything under $dir, and an image made of busybox"
ctd_start "$dir" "$(dirname "$(command -v containerd)")" "$target/examples"
ctd_image "$dir/busybox.tar"
ctd_ctr "$dir" image import "$dir/busybox.tar" >/dev/null
ctd_ctr "$dir" --version

now=$(date +%s)
web=web-$now pod=pod-$now app=app-$now
say "Three containers: '$web' (runc), the sandbox '$pod' and '$app' in it (the example shim)"
ctd_run "$dir" default "$web" --memory-limit 67108864 -- sh -c 'while true; do dd if=/dev/zero of=/tmp/x bs=1M count=4; sleep 0.2; done'
ctd_run_sandbox "$dir" default "$pod" -- sleep 1000
ctd_run_child "$dir" default "$app" "$pod" -- sh -c 'while true; do echo x >/dev/null; sleep 0.1; done'
ctd_ctr "$dir" task ls

# On a machine whose containerd is in the usual place, --state is not needed.
kr="kata-runtime --state $dir/state"

say "What does the container use?"
show 0 '"limit": 67108864' "$kr events --stats $web"

say "The beginning of an id will do, where it fits no other. One line of JSON, for jq:"
show 0 "\"id\":\"$web\"" "$kr events --stats --format json web- | jq -c '{id, memory: .data.memory.usage, net: .data.interfaces}'"

say "Every second, until the container stops or the reader has seen enough"
show 0 '"cpu_ms":[0-9]+' "$kr events --interval 1s --format json $web | jq --unbuffered -c '{cpu_ms: (.data.cpu.usage.total / 1e6 | floor), pids: .data.pids.current}' | head -n 3"

say "A container in a pod is asked through its sandbox's shim"
show 0 "\"id\":\"$app\"" "$kr events --stats --format json $app | jq -c '{id, cpu: .data.cpu.usage}'"

say "What does the sandbox itself cost? Its monitor knows, in Prometheus's format."
show 0 '^# TYPE kata_hypervisor_threads gauge' "$kr metrics $pod | grep -A 2 -E '^# HELP kata_(hypervisor_threads|shim_fds|guest_load|agent_total_rss)'"
families="$kr metrics $pod | grep -c '^# TYPE '"
show 0 '^[1-9][0-9]$' "$families"

say "A container leads to its sandbox; a line on stderr says so"
show 0 "sandbox $pod" "$kr metrics $app | head -n 3"

say "What does not run is said not to"
show 1 '^Container ID \(nobody\) does not exist$' "$kr events --stats nobody"
ctd_ctr "$dir" task kill --signal KILL "$app" && sleep 0.5
show 1 "^Container ID \($app\) does not exist$" "$kr events --stats $app"

say "A stream ends when its container does"
(sleep 1.5 && ctd_ctr "$dir" task kill --signal KILL "$web") &
show 0 "$web" "$kr events --interval 500ms --format json $web | jq -c '{pids: .data.pids.current}'"

say "A sandbox that has stopped is not running, whatever is left of it"
ctd_ctr "$dir" task kill --signal KILL "$pod" && sleep 0.5
show 1 "sandbox $pod is not running" "$kr metrics $pod"
ctd_ctr "$dir" task rm "$app" "$pod" >/dev/null 2>&1 || true
show 1 "^Get \"http://shim/metrics\": dial unix /run/vc/sbs/$pod/shim-monitor.sock: connect: no such file or directory" \
    "$kr metrics $pod"

say "The end: containers, shims and containerd are stopped, and their directories removed"
ctd_clean "$dir"
trap - EXIT
if [ "$unexpected" != 0 ]; then
    echo "$unexpected of the commands above did not do what they should have done."
    exit 1
fi
echo "Everything was as it should be."
