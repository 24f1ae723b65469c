#!/usr/bin/env bash
# Tests the Helm chart, the manifests made of it, the dashboard and the rules, without a cluster: what helm and promtool say,
# Kubernetes' and Prometheus Operator's own schemas, and what must be in the result.
. "$(dirname "$0")/lib.sh"
need promtool=prometheus
need_helm
need_python
need_operator_models
chart=packaging/helm/kata-runtime-monitor
helm=$tools/bin/helm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "versions"
version=$(version)
[ "$(sed -n 's/^appVersion: "\(.*\)"/\1/p' "$chart/Chart.yaml")" = "$version" ] ||
    { say "appVersion in $chart/Chart.yaml is not $version"; exit 1; }

say "rules"
promtool check rules "$chart/files/rules.yaml" >"$work/log" || { cat "$work/log"; exit 1; }
promtool test rules packaging/prometheus/rules_test.yaml >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

say "what is committed is what is rendered"
packaging/render.sh "$work/rendered"
for file in $(cd "$work/rendered" && find . -type f); do
    diff -u "$file" "$work/rendered/$file" >"$work/log" || { head -n 40 "$work/log"; say "run packaging/render.sh"; exit 1; }
done

say "helm lint"
all=(--set podMonitor.enabled=true --set serviceMonitor.enabled=true --set prometheusRule.enabled=true --set dashboard.enabled=true)
"$helm" lint --strict "$chart" "${all[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

# render NAME OPTION...: into $work/NAME.yaml.
render() {
    local name=$1
    shift
    "$helm" template release "$chart" --namespace kata-system "$@" >"$work/$name.yaml"
}
# The values that kata-deploy's chart has by default, and with TLS.
cat >"$work/kata-values.yaml" <<'VALUES'
imagePullPolicy: Always
imagePullSecrets: []
monitor:
  enabled: true
  image:
    reference: quay.io/kata-containers/kata-monitor
    tag: ""
  listenAddress: "0.0.0.0:8090"
  runtimeEndpoint: "unix:///run/containerd/containerd.sock"
  logLevel: ""
  port: 8090
  securityContext:
    privileged: false
    runAsUser: 0
    runAsGroup: 0
  resources:
    limits:
      cpu: 200m
      memory: 300Mi
    requests:
      cpu: 200m
      memory: 300Mi
k8sDistribution: "k8s"
nodeSelector: {}
tolerations: []
priorityClassName: "system-node-critical"
debug: false
VALUES
say "render"
render default
render everything "${all[@]}" --set k8sDistribution=microk8s --set monitor.webConfig.secretName=web \
    --set scrape.filterFamily=container_ --set scrape.tlsConfig.insecureSkipVerify=true
render kata --values "$work/kata-values.yaml" --set debug=true
render tls --set monitor.tls.secretName=certs --set monitor.listenAddress=0.0.0.0:8443 --set monitor.port=8443 \
    --set monitor.image.tag=sha256:0123
render off --set monitor.enabled=false
for wrong in monitor.port=9 monitor.logLevel=loud monitor.hostPaths[0]=run monitor.listenaddress=:1 k8sDistribution=k9s; do
    ! "$helm" template release "$chart" --set "$wrong" >"$work/log" 2>&1 || { say "$wrong is taken"; exit 1; }
done

say "the documentation's helm commands"
sed -e ':line; /\\$/ { N; s/ *\\\n */ /; b line }' docs/how-to/*.md |
    grep -E "^helm (install|upgrade) kata-runtime-monitor $chart " >"$work/documented"
[ -s "$work/documented" ]
while read -r _ _ options; do
    eval "\"$helm\" template $options" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
done <"$work/documented"
say "schemas of Kubernetes, and what must be there"
"$tools/python/bin/python" packaging/test-chart.py "$work" crates/shimstat/src/node/places.rs >"$work/operator.jsonl"
cp packaging/test-chart.mjs "$tools/operator/"
node "$tools/operator/test-chart.mjs" <"$work/operator.jsonl"
say "the chart, the manifests, the dashboard and the rules are as they should be"
