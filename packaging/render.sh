#!/usr/bin/env bash
# Renders what is committed beside its source: the dashboard, and plain manifests for those who do not use Helm.
#
#   packaging/render.sh [DIRECTORY]     writes into the repository, or a copy of its layout
. "$(dirname "$0")/lib.sh"
need_helm

to=${1:-.}
chart=packaging/helm/kata-runtime-monitor
mkdir -p "$to/$chart/files" "$to/packaging/kubernetes"
packaging/grafana/dashboard.py >"$to/$chart/files/dashboard.json"

# render FILE COMMENT OPTION...: a file of manifests without what Helm adds for itself.
render() {
    local file=$to/packaging/kubernetes/$1 comment=$2
    shift 2
    {
        echo "# Made of the Helm chart by packaging/render.sh. $comment"
        "$tools/bin/helm" template kata-runtime-monitor "$chart" --namespace kata-system "$@" |
            grep -v -e '^# Source: ' -e 'app.kubernetes.io/managed-by: Helm'
    } >"$file"
}
render kata-runtime-monitor.yaml "The namespace must exist, and allow privileged pods: docs/how-to/kubernetes.md."
render prometheus-operator.yaml "For Prometheus Operator and Grafana's sidecar." --set monitor.enabled=false \
    --set podMonitor.enabled=true --set prometheusRule.enabled=true --set dashboard.enabled=true
