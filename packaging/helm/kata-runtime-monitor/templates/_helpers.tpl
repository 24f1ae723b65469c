{{- define "monitor.selector" -}}
app.kubernetes.io/name: kata-runtime-monitor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "monitor.labels" -}}
{{ include "monitor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "monitor.image" -}}
{{- $tag := .Values.monitor.image.tag | default .Chart.AppVersion -}}
{{- .Values.monitor.image.reference }}{{ hasPrefix "sha256:" $tag | ternary "@" ":" }}{{ $tag }}
{{- end }}

{{- define "monitor.hostPaths" -}}
{{- $paths := .Values.monitor.hostPaths -}}
{{- if eq .Values.k8sDistribution "microk8s" -}}
{{- $paths = append $paths "/var/snap/microk8s/common/run" -}}
{{- end -}}
{{- $paths | uniq | toJson -}}
{{- end }}

{{- /* What PodMonitor and ServiceMonitor say of the endpoint. */ -}}
{{- define "monitor.endpoint" -}}
port: metrics
path: /metrics
interval: {{ .Values.scrape.interval }}
scrapeTimeout: {{ .Values.scrape.timeout }}
# Its series are about other pods and containers, and say which: as the kubelet's.
honorLabels: true
{{- if or .Values.monitor.tls.secretName .Values.scrape.tlsConfig }}
scheme: https
{{- end }}
{{- with .Values.scrape.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scrape.basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scrape.filterFamily }}
params:
  filter_family: [{{ . | quote }}]
{{- end }}
relabelings:
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: node
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: instance
{{- with .Values.scrape.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
