#!/usr/bin/env bash
# What the program may and must be allowed: capabilities, paths, namespaces. Runs it with exactly what
# docs/privileges.md names, and with one thing fewer, and checks what it answers and what it says.
. "$(dirname "$0")/lib.sh"
node_start setpriv=util-linux jq=jq curl=curl tmux=tmux
node_containers
# A process of another user, and a container that is kept by another user, as rootless containerd keeps its own.
other=$(ctd_id other) foreign=$(ctd_id foreign)
ctd_run "$dir" "$NS" "$other" -- sh -c 'echo u:x:1000:1000::/:/bin/sh >>/etc/passwd; exec su u -c "exec sleep 1000000"'
ctd_run "$dir" "$NS" "$foreign" -- sleep 1000000
bundle=$state/io.containerd.runtime.v2.task/$NS/$foreign
socket=$(sed 's#^unix://##' "$bundle/address")
chown -R -h 1000:1000 "$bundle" "$socket"
chmod 700 "$bundle"
# containerd makes this directory without the right to search it, so only a capability leads in.
searchable=no
[ $((0$(stat -c %a /run/containerd/s) & 0100)) = 0 ] || searchable=yes

failed=0
# expect WHAT COMMAND...: notes a check that fails.
expect() {
    local what=$1
    shift
    if "$@"; then
        echo "ok      $what"
    else
        echo "FAILED  $what: $*"
        failed=$((failed + 1))
    fi
}
is() { [ "$1" = "$2" ] || { echo "        got: $1"; return 1; }; }
has() { grep -qE -- "$2" "$1" || { head -n 5 "$1" | sed 's/^/        got: /'; return 1; }; }

# with CAPS COMMAND...: root with these capabilities only (none, or +a,+b).
with() {
    local set=-all
    [ "$1" = none ] || set=-all,$1
    shift
    setpriv --bounding-set "$set" --inh-caps -all --no-new-privs "$@"
}
# ask NAME PREFIX...: what the commands answer, into $dir/NAME/.
ask() {
    local name=$1 out=$dir/$1 port id process
    shift
    mkdir -p "$out"
    "$@" "$KATA_RUNTIME" --state "$state" list -o json >"$out/list" 2>"$out/list.err" || true
    for id in plain app other foreign; do
        "$@" "$KATA_RUNTIME" --state "$state" events --stats --format json "${!id}" >"$out/$id" 2>"$out/$id.err" &&
            echo 0 >"$out/$id.status" || echo $? >"$out/$id.status"
    done
    "$@" "$KATA_RUNTIME" --state "$state" metrics "$sandbox" >"$out/metrics" 2>"$out/metrics.err" || true
    "$@" "$KATA_RUNTIME" --state "$state" metrics --summary "$sandbox" >"$out/summary" 2>&1 || true
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$@" "$KATA_RUNTIME" --state "$state" monitor --listen-address "127.0.0.1:$port" >"$out/monitor.err" 2>&1 &
    process=$!
    # Two scrapes: the first may come before everything is known.
    for _ in $(seq 50); do
        curl -sf --noproxy '*' "http://127.0.0.1:$port/metrics" >"$out/page" && break
        sleep 0.1
    done
    curl -sf --noproxy '*' "http://127.0.0.1:$port/metrics" >"$out/page" || true
    ctd_end "$process"
    wait "$process" 2>/dev/null || true
    # The families about our own containers, and in how many of them.
    grep -E "$plain|$sandbox|$app|$other|$foreign|^kata_monitor_host" "$out/page" | sed 's/[{ ].*//' | sort -u >"$out/families" || true
}
keys() { jq -r '[paths(scalars) | map(tostring) | join(".")] | map(sub("percpu\\.\\d+"; "percpu")) | unique | .[]' "$1"; }
same_keys() { diff <(keys "$dir/$1/$3") <(keys "$dir/$2/$3"); }
status_of() { jq -r --arg id "$2" '.[] | select(.id == $id).status' "$dir/$1/list"; }
up() { grep "^kata_monitor_container_up{.*id=\"$2\"" "$dir/$1/page" | sed 's/.* //'; }
missing_families() { comm -23 "$dir/all/families" "$dir/$1/families" | tr '\n' ' ' | sed 's/ $//'; }

ask all env
echo "# root with CAP_SYS_PTRACE and CAP_DAC_OVERRIDE: everything"
ask most with +sys_ptrace,+dac_override
for id in plain app other foreign; do
    expect "events: $id is complete" same_keys all most "$id"
    expect "list: $id runs" is "$(status_of most "${!id}")" running
    expect "monitor: $id is up" is "$(up most "${!id}")" 1
done
expect "metrics: the same families" diff <(grep '^# TYPE' "$dir/all/metrics" | sort) <(grep '^# TYPE' "$dir/most/metrics" | sort)
expect "monitor: the same families" is "$(missing_families most)" ""

echo "# CAP_DAC_READ_SEARCH for CAP_DAC_OVERRIDE: everything but containers that other users keep"
ask search with +sys_ptrace,+dac_read_search
for id in plain app other; do
    expect "events: $id is complete" same_keys all search "$id"
    expect "monitor: $id is up" is "$(up search "${!id}")" 1
done
expect "events: a foreign container fails" is "$(cat "$dir/search/foreign.status")" 1
expect "and says at which socket" has "$dir/search/foreign.err" "connect to $socket: permission denied"
expect "and which capability it lacks" has "$dir/search/foreign.err" "lacks CAP_DAC_OVERRIDE"
expect "list: it has an error" is "$(status_of search "$foreign")" error
expect "monitor: it is down" is "$(up search "$foreign")" 0
expect "with a reason" has "$dir/search/page" "^kata_monitor_container_failure\{.*$foreign.*reason="

echo "# without CAP_SYS_PTRACE: what the kernel tells of other processes is missing"
ask unseen with +dac_override
for id in plain app other foreign; do
    expect "events: $id has all but its network" is \
        "$(comm -23 <(keys "$dir/all/$id" | sort) <(keys "$dir/unseen/$id" | sort) | grep -vE '^data\.(interfaces|tcp6?|udp6?)\.' || true)" ""
    expect "list: $id runs" is "$(status_of unseen "${!id}")" running
done
echo "        families missing: $(missing_families unseen)"
expect "events: an empty list does not say that there is no network" is "$(jq '.data | has("interfaces")' "$dir/unseen/plain")" false
expect "and says why" has "$dir/unseen/plain.err" "CAP_SYS_PTRACE"
expect "monitor: it says so" has "$dir/unseen/page" "^kata_monitor_host_processes_readable 0"
expect "monitor: no container is down" is "$(up unseen "$plain")" 1
tmux -S "$dir/tmux" -f /dev/null new-session -d -x 100 -y 30 \
    "exec setpriv --bounding-set -all,+dac_override --inh-caps -all --no-new-privs '$KATA_RUNTIME' --state '$state' top"
for _ in $(seq 50); do
    tmux -S "$dir/tmux" capture-pane -p >"$dir/unseen/top"
    ! grep -q CAP_SYS_PTRACE "$dir/unseen/top" || break
    sleep 0.1
done
tmux -S "$dir/tmux" kill-server
expect "top: it says why there is no network" has "$dir/unseen/top" "CAP_SYS_PTRACE"

echo "# root without capabilities: no shim can be reached where containerd's directory cannot be searched"
ask none with none
ids="plain app other foreign"
# Where that directory may be searched, root needs nothing for its own containers.
[ "$searchable" = no ] || ids=foreign
for id in $ids; do
    expect "events: $id fails" is "$(cat "$dir/none/$id.status")" 1
    expect "and says at which path" has "$dir/none/$id.err" "(connect to /run/containerd/s/|read $bundle/).*[Pp]ermission denied"
    expect "and which capability it lacks" has "$dir/none/$id.err" "lacks CAP_DAC_READ_SEARCH"
    expect "list: $id has an error" is "$(status_of none "${!id}")" error
    expect "monitor: $id is down" is "$(up none "${!id}")" 0
done
if [ "$searchable" = no ]; then
    expect "metrics says at which socket" has "$dir/none/metrics.err" "connect to /run/containerd/s/.*permission denied"
    expect "the summary says what is not known" has "$dir/none/summary" "not known: .*permission denied"
fi

echo "# another user"
chmod 755 "$dir"
ask user setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all
expect "events fails" is "$(cat "$dir/user/plain.status")" 1
expect "and says what to do" has "$dir/user/plain.err" "run this as root"

echo "# everything mounted read-only: nothing is written anywhere"
# inside MOUNTS COMMAND...: in a mount namespace of its own, after these commands.
inside() {
    local mounts=$1
    shift
    unshare --mount --propagation private sh -ec "$mounts"'; exec "$@"' sh "$@"
}
ask readonly inside 'for m in $(cut -d" " -f2 /proc/self/mounts | sort -u); do mount -o remount,bind,ro "$m" 2>/dev/null || true; done'
for id in plain app foreign; do
    expect "events: $id is complete" same_keys all readonly "$id"
done
expect "monitor: the same families" is "$(missing_families readonly)" ""

echo "# without /sys/fs/cgroup: containers that have a shim do not need it"
ask uncontrolled inside 'mount -t tmpfs none /sys/fs/cgroup'
expect "events: plain is complete" same_keys all uncontrolled plain
echo "        families missing: $(missing_families uncontrolled)"

echo "# without Kata's directories: the monitor socket cannot be reached"
ask unmonitored inside 'for d in /run/vc /run/kata; do [ ! -d $d ] || mount -t tmpfs none $d; done'
expect "metrics says so" has "$dir/unmonitored/metrics.err" "$sandbox"
expect "events: app has its own figures" is "$(cat "$dir/unmonitored/app.status")" 0

echo "# without the host's process ids"
ask unpaired unshare --pid --fork --mount-proc --kill-child=KILL
expect "events: plain has all but its network" is \
    "$(comm -23 <(keys "$dir/all/plain" | sort) <(keys "$dir/unpaired/plain" | sort) | grep -vE '^data\.(interfaces|tcp6?|udp6?)\.' || true)" ""
expect "monitor says that it does not see them" has "$dir/unpaired/page" "^kata_monitor_host_pids_visible 0"
echo "        families missing: $(missing_families unpaired)"

[ "$failed" = 0 ] || die "$failed checks failed"
echo "privileges.sh: passed"
