{{/* Where the cluster's state is kept; nothing for memory only. */}}
{{- define "lacuna.gcsFaultTolerance" -}}
{{- with .Values.gcsFaultTolerance }}
{{- if eq .backend "redis" }}
redisAddress: {{ .redis.address | quote }}
{{- range $field, $secret := dict "redisUsername" .redis.username "redisPassword" .redis.password }}
{{- if $secret.name }}
{{ $field }}:
  valueFrom:
    secretKeyRef:
      name: {{ $secret.name }}
      key: {{ $secret.key }}
{{- end }}
{{- end }}
{{- with .redis.externalStorageNamespace }}
externalStorageNamespace: {{ . }}
{{- end }}
{{- else if eq .backend "rocksdb" }}
backend: rocksdb
storage:
  {{- with .rocksdb }}
  {{- if .claimName }}
  claimName: {{ .claimName }}
  {{- else }}
  size: {{ .size }}
  deletionPolicy: {{ .deletionPolicy }}
  {{- with .storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}
