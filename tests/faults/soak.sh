#!/usr/bin/env bash
# Runs the exporter with scrapers, a stream of all containers and `top` in tmux for some time, while pods come and go, and
# checks that memory, descriptors and threads stay flat, that no scrape fails, that each page has every container that was
# there all the time, and that the three together never put more than three questions at once to one sandbox.
#
#   tests/faults/soak.sh MINUTES [CONTAINERS [SCRAPERS [PACE]]]     20 containers, 10 scrapers and 1 second are the default:
#       `events` and `top` ask every PACE seconds, each scraper in twice the time
#   tests/faults/soak.sh 60 200 50 10                        the hour: docs/soak.md has what came out
. "$(dirname "$0")/lib.sh"
minutes=${1:?usage: soak.sh MINUTES [CONTAINERS [SCRAPERS [PACE]]]} containers=${2:-20} scrapers=${3:-10} pace=${4:-1}
node_start tmux=tmux
echo "starting $containers containers"
steady=()
for number in $(seq "$containers"); do
    # A third of them in pods of two, the others of runc.
    case $((number % 3)) in
        1) id=$(ctd_id steady) pod=$id
            ctd_run_sandbox "$dir" "$NS" "$id" --annotation io.kata-runtime.test.agent=yes -- sleep 1000000
            # So that questions put at once are seen to be.
            echo slow >"/run/vc/sbs/$id/agent" ;;
        2) id=$(ctd_id steady)
            ctd_run_child "$dir" "$NS" "$id" "$pod" -- sleep 1000000 ;;
        0) id=$(ctd_id steady)
            ctd_run "$dir" "$NS" "$id" -- sleep 1000000 ;;
    esac
    steady+=("$id")
done
# Pods that come and go. Each start is noted for the cleanup.
churn() {
    local pod app
    while sleep 1; do
        pod=$(ctd_id come) app=$(ctd_id go)
        ctd_run_sandbox "$dir" "$NS" "$pod" -- sleep 1000000 && ctd_run_child "$dir" "$NS" "$app" "$pod" -- sleep 1000000
        sleep 2
        for id in "$app" "$pod"; do
            ctd_ctr "$dir" --namespace "$NS" task rm --force "$id"
            ctd_ctr "$dir" --namespace "$NS" container rm "$id"
        done
    done
}
node_background "$dir/churn.log" churn
node_background "$dir/events.log" "$KATA_RUNTIME" --state "$state" events --all --interval ${pace}s --format json
events=$pid
node_background "$dir/monitor.log" "$KATA_RUNTIME" --state "$state" monitor --listen-address 127.0.0.1:0
monitor=$pid
place=$(node_listening "$dir/monitor.log")
tmux -S "$dir/tmux" -f /dev/null new-session -d -x 140 -y 40 "exec '$KATA_RUNTIME' --state '$state' top --interval ${pace}s"
top=$(tmux -S "$dir/tmux" list-panes -F '#{pane_pid}')
started=("$top" "${started[@]}")
echo "monitor $monitor at $place, events $events, top $top"
status=0
python3 tests/faults/soak.py "$minutes" "$scrapers" "$pace" "$place" "$dir/events.log" "monitor=$monitor" "events=$events" "top=$top" \
    "${steady[@]}" || status=$?
tmux -S "$dir/tmux" capture-pane -p 2>/dev/null | head -n 3 || true
echo "$(grep -c . "$dir/ids") containers were started in all"
exit "$status"
