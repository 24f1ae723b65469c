#!/usr/bin/env bash
# Which system calls the commands make, and that packaging/seccomp/kata-runtime.json and the systemd unit allow them: every
# command runs under strace, and then under the profile, where a call that is not in it ends the process.
#
#   tests/faults/seccomp.sh            writes the table of docs/privileges.md to target/faults-calls.md
. "$(dirname "$0")/lib.sh"
node_start strace=strace curl=curl tmux=tmux openssl=openssl
node_containers
profile=packaging/seccomp/kata-runtime.json
failed=0
fail() {
    echo "FAILED  $*"
    failed=$((failed + 1))
}

hung=$(ctd_id hung)
ctd_run_sandbox "$dir" "$NS" "$hung" --annotation io.kata-runtime.test.agent=yes -- sleep 1000000
echo hang >"/run/vc/sbs/$hung/agent"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
cat >"$dir/web.yml" <<WEB
tls_server_config: {cert_file: $dir/cert.pem, key_file: $dir/key.pem}
WEB

kata() { echo "$KATA_RUNTIME --state $state $*"; }
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# run PREFIX NAME: one of the scenarios below. Its own status, or 0 where a signal of ours ended it.
names="events stream list overview metrics summary complete handover top monitor monitor-tls"
run() {
    local prefix=$1 name=$2 at process status=0 page
    at=$(port)
    case "$name" in
        events) $prefix $(kata events --stats --all --timeout 500ms) || [ $? = 1 ] || return ;;
        stream) timeout -s INT 2.5 $prefix $(kata events --interval 500ms "$plain" "$app") || [ $? = 124 ] || return ;;
        list) $prefix $(kata list --timeout 500ms) && $prefix $(kata list -o json) && $prefix $(kata list -o csv) &&
            $prefix $(kata list --places) && { timeout -s INT 1.5 $prefix $(kata list --watch --interval 300ms) || [ $? = 124 ]; } ;;
        overview) $prefix $(kata) ;;
        metrics) $prefix $(kata metrics "$sandbox") ;;
        summary) $prefix $(kata metrics --summary --interval 500ms "$sandbox") ;;
        complete) $prefix "$KATA_RUNTIME" completion bash && $prefix $(kata __complete events '') && $prefix "$KATA_RUNTIME" --help ;;
        handover) PATH=$dir/next:$PATH $prefix "$KATA_RUNTIME" env ;;
        top)
            tmux -S "$dir/tmux" -f /dev/null new-session -d -x 100 -y 30 "$prefix $(kata top --interval 500ms) 2>$dir/top.err; echo \$? >$dir/top.status"
            sleep 2; tmux -S "$dir/tmux" resize-window -x 90 -y 25; tmux -S "$dir/tmux" send-keys j; sleep 1
            tmux -S "$dir/tmux" send-keys q
            for _ in $(seq 50); do [ -s "$dir/top.status" ] && break; sleep 0.1; done
            status=$(cat "$dir/top.status"); rm -f "$dir/top.status"
            tmux -S "$dir/tmux" kill-server 2>/dev/null || true
            return "$status" ;;
        monitor | monitor-tls)
            page=http://127.0.0.1:$at
            local options=()
            [ "$name" = monitor ] || { options=(--web.config.file "$dir/web.yml"); page=https://127.0.0.1:$at; }
            $prefix $(kata monitor --listen-address "127.0.0.1:$at") "${options[@]}" 2>"$dir/monitor.err" &
            process=$!
            for _ in $(seq 100); do
                curl -skf --noproxy '*' --compressed "$page/metrics" >"$dir/page" && break
                kill -0 "$process" 2>/dev/null || { wait "$process"; return; }
                sleep 0.1
            done
            curl -skf --noproxy '*' "$page/metrics" >"$dir/page" || status=1
            curl -skf --noproxy '*' "$page/" >/dev/null || status=1
            curl -sk --noproxy '*' -d x "$page/nothing" >/dev/null || true
            # strace passes nothing on: the program itself is its child.
            for child in $(cat "/proc/$process/task/$process/children") "$process"; do kill -TERM "$child" 2>/dev/null || true; done
            wait "$process" || [ $? = 143 ] || status=1
            grep -q "container_up{.*$plain.* 1$" "$dir/page" || status=1
            return "$status" ;;
    esac
}
mkdir -p "$dir/next"
printf '#!/bin/sh\nexit 0\n' >"$dir/next/kata-runtime"
chmod +x "$dir/next/kata-runtime"

record=$target/faults-calls.md
mkdir -p "$target"
{
    echo "| command | system calls |"
    echo "|---|---|"
} >"$record"
: >"$dir/union"
for name in $names; do
    run "strace -f -qq -e signal=none -o $dir/trace.$name" "$name" >"$dir/out" 2>"$dir/err" ||
        fail "$name under strace: status $?: $(tail -n 2 "$dir/err")"
    # What another program does after the hand-over is its own.
    [ "$name" != handover ] || sed -i '/execve("[^"]*next/,$d' "$dir/trace.$name"
    calls=$(sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$dir/trace.$name" | sort -u)
    echo "$calls" >>"$dir/union"
    echo "| $name | $(echo $calls | sed 's/ /, /g') |" >>"$record"
done
sort -u -o "$dir/union" "$dir/union"
echo "$(wc -l <"$dir/union") different system calls; the table is in $record"

missing=$(python3 tests/faults/seccomp.py "$profile" --check <"$dir/union")
[ -z "$missing" ] || fail "the profile does not have: $(echo $missing)"

# What the unit allows: @system-service without what it takes away.
set_of() { systemd-analyze syscall-filter "$1" | sed -nE 's/^ +([@a-z0-9_-]+)$/\1/p' | while read -r one; do
    case "$one" in @*) set_of "$one" ;; *) echo "$one" ;; esac; done; }
if systemd-analyze syscall-filter @system-service >/dev/null 2>&1; then
    comm -23 <(set_of @system-service | sort -u) <({ set_of @privileged; set_of @resources; } | sort -u) >"$dir/unit"
    missing=$(comm -23 "$dir/union" "$dir/unit")
    [ -z "$missing" ] || fail "the systemd unit's filter does not have: $(echo $missing)"
else
    echo "systemd-analyze is missing: the unit's filter was not compared"
fi

for name in $names; do
    [ "$name" != handover ] || continue  # the other program needs what it needs
    if run "python3 tests/faults/seccomp.py $profile" "$name" >"$dir/out" 2>"$dir/err"; then
        echo "ok      $name under the profile"
    else
        fail "$name under the profile: status $?: $(tail -n 2 "$dir/err")"
    fi
done
# A container of runc reads the profile itself. (What only the container's user may do is no matter here.)
if ctd_ctr "$dir" --namespace "$NS" run --rm --seccomp --seccomp-profile "$profile" --net-host \
    --mount "type=bind,src=/run,dst=/run,options=rbind:ro" \
    --mount "type=bind,src=$dir,dst=$dir,options=rbind:ro" --mount "type=bind,src=$(dirname "$KATA_RUNTIME"),dst=/mnt,options=rbind:ro" \
    "$CTD_IMAGE" "$(ctd_id seccomp)" /mnt/kata-runtime --state "$state" list >"$dir/out" 2>"$dir/err" </dev/null &&
    grep -q "$plain.*running" "$dir/out"; then
    echo "ok      list in a container of runc with the profile"
else
    fail "list in a container of runc with the profile: $(tail -n 3 "$dir/out" "$dir/err")"
fi
# The test can fail.
for call in connect getdents64 epoll_wait; do
    status=0
    (python3 tests/faults/seccomp.py "$profile" --without "$call" $(kata list)) >/dev/null 2>&1 || status=$?
    [ "$status" = 159 ] || fail "without $call the status is $status, not 159 (SIGSYS)"
done

[ "$failed" = 0 ] || die "$failed checks failed"
echo "seccomp.sh: passed"
