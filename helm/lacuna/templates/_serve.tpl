{{/* Serve's configuration: what deployments/serve.yaml is outside Kubernetes. */}}
{{- define "lacuna.serveConfig" -}}
http_options:
  host: 0.0.0.0
  port: {{ .Values.serve.http.port }}
  {{- with .Values.serve.http.requestTimeoutS }}
  request_timeout_s: {{ . }}
  {{- end }}
grpc_options:
  port: {{ .Values.serve.grpc.port }}
  {{- with .Values.serve.grpc.requestTimeoutS }}
  request_timeout_s: {{ . }}
  {{- end }}
  grpc_servicer_functions:
    - deployments.grpc_wiring.add_generation_servicer
    - deployments.grpc_wiring.add_health_servicer
    - deployments.grpc_reflection.add_reflection_servicer
applications:
  - name: lacuna
    route_prefix: /
    import_path: deployments.app:build_app
    autoscaling_policy:
      policy_function: deployments.autoscaling:router_policy
    args:
{{ include "lacuna.app" . | indent 6 }}
{{- end -}}

{{/* Environment of every Ray container: Serve reads its flags on each node. */}}
{{- define "lacuna.env" -}}
- name: RAY_worker_niceness # Ray starts workers at 15, which starves proxies beside busy engines
  value: "0"
- name: RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S
  value: {{ .Values.serve.autoscalingMetricsIntervalS | quote }}
{{- if .Values.serve.haProxy }}
- name: RAY_SERVE_ENABLE_HA_PROXY
  value: "1"
{{- end }}
{{- if .Values.serve.throughputOptimized }}
- name: RAY_SERVE_THROUGHPUT_OPTIMIZED
  value: "1"
{{- end }}
{{- if and .Values.apiKeys.existingSecret (not .Values.apiKeys.mount) }}
- name: LACUNA_API_KEYS
  valueFrom:
    secretKeyRef:
      name: {{ .Values.apiKeys.existingSecret }}
      key: {{ .Values.apiKeys.key }}
{{- end }}
{{- if .Values.ledger.existingSecret }}
- name: LACUNA_LEDGER_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.ledger.existingSecret }}
      key: {{ .Values.ledger.key }}
{{- end }}
{{- end -}}
