{{/* GPUs of a group's pods, whoever made them. */}}
{{- define "lacuna.gpus" -}}
{{- $count := 0 -}}
{{- range $name, $amount := .resources.limits -}}
{{- if hasSuffix "/gpu" $name -}}{{- $count = add $count (int $amount) -}}{{- end -}}
{{- end -}}
{{- $count -}}
{{- end -}}

{{- define "lacuna.volumes" -}}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .group.shmSize }}
{{- with .root.Values.checkpoints }}
{{- if .existingClaim }}
- name: checkpoints
  persistentVolumeClaim:
    claimName: {{ .existingClaim }}
    readOnly: {{ .readOnly }}
{{- else if .hostPath }}
- name: checkpoints
  hostPath:
    path: {{ .hostPath }}
    type: Directory
{{- else if .volume }}
- {{ toYaml (merge (dict "name" "checkpoints") .volume) | indent 2 | trim }}
{{- end }}
{{- end }}
{{- with .root.Values.apiKeys }}
{{- if and .existingSecret .mount }}
- name: api-keys
  secret:
    secretName: {{ .existingSecret }}
    items:
      - {key: {{ .key }}, path: {{ .key }}}
{{- end }}
{{- end }}
{{- range concat .root.Values.extraVolumes .group.extraVolumes }}
- {{ toYaml . | indent 2 | trim }}
{{- end }}
{{- end -}}

{{- define "lacuna.mounts" -}}
- name: shm
  mountPath: /dev/shm
{{- with .root.Values.checkpoints }}
{{- if or .existingClaim .hostPath .volume }}
- name: checkpoints
  mountPath: {{ .mountPath }}
  readOnly: {{ .readOnly }}
{{- end }}
{{- end }}
{{- with .root.Values.apiKeys }}
{{- if and .existingSecret .mount }}
- name: api-keys
  mountPath: /etc/lacuna/api-keys
  readOnly: true
{{- end }}
{{- end }}
{{- range concat .root.Values.extraVolumeMounts .group.extraVolumeMounts }}
- {{ toYaml . | indent 2 | trim }}
{{- end }}
{{- end -}}

{{/* A worker is ready when Serve's proxy on it is; that of the head is the operator's business. Ray's agent tells whether
the node lives, at the head its state service too; both paths need no token. */}}
{{- define "lacuna.probes" -}}
readinessProbe:
  httpGet:
    {{- if .isHead }}
    path: /api/healthz
    port: 52365
    {{- else }}
    path: /-/healthz
    port: serve
    {{- end }}
{{ toYaml .root.Values.probes.readiness | indent 2 }}
livenessProbe:
  httpGet:
    path: /api/healthz
    port: 52365
{{ toYaml .root.Values.probes.liveness | indent 2 }}
{{- end -}}

{{- define "lacuna.ports" -}}
{{- if .isHead }}
- {name: gcs-server, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
{{- end }}
- {name: metrics, containerPort: 8080}
- {name: serve, containerPort: {{ .root.Values.serve.http.port }}}
- {name: serve-grpc, containerPort: {{ .root.Values.serve.grpc.port }}}
{{- end -}}

{{- define "lacuna.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The pods of the head or of a group. Argument: root, group, isHead. */}}
{{- define "lacuna.podTemplate" -}}
{{- $component := ternary "ray-head" "ray-worker" .isHead -}}
{{- $labels := fromYaml (include "lacuna.podLabels" (dict "root" .root "component" $component)) -}}
metadata:
  labels:
{{ toYaml (mergeOverwrite (deepCopy .group.labels) $labels) | indent 4 }}
  {{- with .group.annotations }}
  annotations:
{{ toYaml . | indent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "lacuna.serviceAccount" .root }}
  automountServiceAccountToken: {{ and .isHead .root.Values.autoscaler.enabled }}
  terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
{{ toYaml . | indent 4 }}
  {{- end }}
  {{- with .root.Values.podSecurityContext }}
  securityContext:
{{ toYaml . | indent 4 }}
  {{- end }}
{{- with include "lacuna.scheduling" .group }}
{{ . | trim | indent 2 }}
{{- end }}
  containers:
    - name: {{ $component }}
      image: {{ include "lacuna.image" .root.Values.image | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      {{- with .root.Values.securityContext }}
      securityContext:
{{ toYaml . | indent 8 }}
      {{- end }}
      resources:
{{ toYaml .group.resources | indent 8 }}
      ports:
{{ include "lacuna.ports" . | trim | indent 8 }}
      env:
{{ include "lacuna.env" .root | indent 8 }}
        {{- if eq (include "lacuna.gpus" .group) "0" }}
        - name: NVIDIA_VISIBLE_DEVICES # otherwise NVIDIA's runtime shows every GPU of the node
          value: void
        {{- end }}
        {{- range concat .root.Values.env .group.env }}
        - {{ toYaml . | indent 10 | trim }}
        {{- end }}
{{ include "lacuna.probes" . | indent 6 }}
      volumeMounts:
{{ include "lacuna.mounts" . | indent 8 }}
  volumes:
{{ include "lacuna.volumes" . | indent 4 }}
{{- end -}}
