#!/usr/bin/env bash
# Shows `kata-runtime` on real containers: a container of runc, and pods (a sandbox and a container in it) of the
# tests' shim, which stands in for Kata; at the end a real Prometheus scrapes them. Needs root, Rust and Debian;
# everything else it installs, saying so, and all that it starts, it ends. (Where there is systemd, Debian's packages
# start services of their own, which have nothing to do with this.) Exits with an error if anything shown is not as it
# should be.
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
ctd_need cc=gcc containerd=containerd runc=runc busybox=busybox-static jq=jq curl=curl prometheus=prometheus
# CI shows what its tests have built: DEMO_PROGRAMS is the directory.
[ -n "${DEMO_PROGRAMS:-}" ] || cargo build --release --package kata-runtime --package sandbox-shim </dev/null
target=$(realpath "${DEMO_PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}")

dir=$(mktemp -d /tmp/kata-demo.XXXX)
# What runs in the background, newest first.
started=()
cleanup() {
    local pid
    for pid in "${started[@]}"; do
        ctd_end "$pid"
    done
    started=()
    ctd_clean "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export PATH=$target:$PATH
# curl is to ask what runs here itself, whatever proxy there is for the rest.
export no_proxy=${no_proxy:+$no_proxy,}127.0.0.1

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

# start LOG COMMAND: prints a command, starts it in the background, and waits until it says where it listens. Leaves
# its process id in $pid and the place in $place.
start() {
    local log=$1 command=$2 tries
    printf '\n$ %s &\n' "$command"
    # exec, so that the process is the command itself, and not a shell around it.
    bash -c "exec $command" >"$log" 2>&1 </dev/null &
    pid=$!
    started=("$pid" "${started[@]}")
    for tries in $(seq 300); do
        place=$(sed -nE 's#^listening on http://([0-9.:]+)/.*#\1#p; s#.*"Listening on" address=([0-9.:]+).*#\1#p' "$log")
        [ -z "$place" ] || return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "*** it did not come up after $tries tries:" >&2
    tail -n 5 "$log" >&2
    return 1
}

# await QUERY: waits until a query of Prometheus gives something.
await() {
    local tries
    for tries in $(seq 300); do
        curl -s "$api/query" --data-urlencode "query=$1" | jq -e '.data.result | length > 0' >/dev/null && return 0
        sleep 0.1
    done
    echo "*** Prometheus has nothing for $1 after $tries tries"
    unexpected=$((unexpected + 1))
}

say "A containerd of our own, with everything under $dir, and an image made of busybox"
ctd_start "$dir" "$(dirname "$(command -v containerd)")" "$target"
ctd_image "$dir/busybox.tar"
ctd_ctr "$dir" image import "$dir/busybox.tar" >/dev/null
ctd_ctr "$dir" --version

now=$(date +%s)
web=web-$now pod=pod-$now app=app-$now
# pod_names POD [CONTAINER]: annotations as Kubernetes' container runtimes write them.
pod_names() {
    echo "--annotation io.kubernetes.cri.sandbox-namespace=shop --annotation io.kubernetes.cri.sandbox-name=$1" \
        "${2:+--annotation io.kubernetes.cri.container-name=$2 --annotation io.kubernetes.cri.image-name=$CTD_IMAGE}"
}
say "Three containers: '$web' (runc), the sandbox '$pod' and '$app' in it (the tests' shim, which stands in for Kata's)"
ctd_run "$dir" default "$web" --memory-limit 67108864 -- sh -c 'while true; do dd if=/dev/zero of=/tmp/x bs=1M count=4; sleep 0.2; done'
# shellcheck disable=SC2046 # words, each of them
ctd_run_sandbox "$dir" default "$pod" $(pod_names front) -- sleep 1000
# shellcheck disable=SC2046
ctd_run_child "$dir" default "$app" "$pod" $(pod_names front app) -- sh -c 'while true; do echo x >/dev/null; sleep 0.1; done'
ctd_ctr "$dir" task ls

# On a machine whose containerd is in the usual place, --state is not needed.
kr="kata-runtime --state $dir/state"

say "What is on this node?"
show 0 "^  $app +shop/front +app .* running " "$kr list"

say "And what does all of it use? (The rates come with the second look, half a second later.)"
show 0 "^$web .*64MiB" "$kr events --all --interval 500ms --format table | head -n 7"

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
show 0 '"exit_status":137.*"type":"exit"' \
    "$kr events --interval 500ms --format json $web | jq -c 'if .type == \"stats\" then {type, pids: .data.pids.current} else . end'"

say "A sandbox that has stopped is not running, whatever is left of it"
ctd_ctr "$dir" task kill --signal KILL "$pod" && sleep 0.5
show 1 "sandbox $pod is not running" "$kr metrics $pod"
ctd_ctr "$dir" task rm "$app" "$pod" >/dev/null 2>&1 || true
show 1 "^Get \"http://shim/metrics\": dial unix /run/vc/sbs/$pod/shim-monitor.sock: connect: no such file or directory" \
    "$kr metrics $pod"

cart=cart-$now till=till-$now
say "For Prometheus: a new pod, shop/cart, whose container 'till' wants all it can get, and gets a fifth of a processor"
# shellcheck disable=SC2046
ctd_run_sandbox "$dir" default "$cart" $(pod_names cart) -- sleep 1000
# shellcheck disable=SC2046
ctd_run_child "$dir" default "$till" "$cart" --cpus 0.2 $(pod_names cart till) -- sh -c 'while :; do :; done'
start "$dir/monitor.log" "$kr monitor --listen-address 127.0.0.1:0"
monitor_pid=$pid monitor=$place
cat "$dir/monitor.log"
show 0 '^# HELP container_' "curl -s http://$monitor/metrics | head -n 8"
show 0 "^$cart" "curl -s http://$monitor/sandboxes"

say "Debian's Prometheus, with a directory of its own, scrapes that every second"
cat >"$dir/prometheus.yml" <<CONFIG
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: node
    static_configs:
      - targets: ['$monitor']
CONFIG
cat "$dir/prometheus.yml"
start "$dir/prometheus.log" "prometheus --config.file $dir/prometheus.yml --storage.tsdb.path $dir/prometheus --web.listen-address 127.0.0.1:0"
api=http://$place/api/v1
echo "(listening on $place; waiting for its first seven scrapes)"
prometheus_pid=$pid
await 'count_over_time(up{job="node"}[1m]) >= 7'
query="curl -s $api/query --data-urlencode"
show 0 '^\{"job":"node","up":"1"\}$' "$query 'query=up' | jq -c '.data.result[] | {job: .metric.job, up: .value[1]}'"

say "How many processors keeps the pod busy? As Kubernetes' dashboards ask."
rate='sum by (namespace, pod, container) (rate(container_cpu_usage_seconds_total{pod="cart",container!=""}[5s]))'
show 0 '^\{"container":"till","namespace":"shop","pod":"cart","processors":"0\.(1[0-9]|2[0-2]?)[0-9]*"\}$' \
    "$query 'query=$rate' | jq -c '.data.result[] | .metric + {processors: .value[1]}'"

say "The sandbox's own families, with kata-monitor's labels, and whether the sandbox answered"
show 0 "\"cri_name\":\"cart\".*\"sandbox_id\":\"$cart\"" \
    "$query 'query=kata_guest_load{item=\"load1\",cri_name=\"cart\"}' | jq -c '.data.result[] | {labels: (.metric | del(.instance, .job)), value: .value[1]}'"
show 0 "^\{\"sandbox\":\"$cart\",\"up\":\"1\"\}$" \
    "$query 'query=kata_monitor_sandbox_up{cri_name=\"cart\"}' | jq -c '.data.result[] | {sandbox: .metric.sandbox_id, up: .value[1]}'"

say "The end: the monitor finishes what runs, Prometheus, containers, shims and containerd are stopped, and their directories removed"
kill -TERM "$monitor_pid"
status=0
wait "$monitor_pid" || status=$?
if [ "$status" != 0 ]; then
    echo "*** UNEXPECTED: the monitor's exit status was $status"
    unexpected=$((unexpected + 1))
fi
started=("$prometheus_pid")
cleanup
trap - EXIT
if [ "$unexpected" != 0 ]; then
    echo "$unexpected of the commands above did not do what they should have done."
    exit 1
fi
echo "Everything was as it should be."
