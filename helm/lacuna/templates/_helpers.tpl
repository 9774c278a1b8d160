{{/* The name of everything: the release's, with the chart's behind it where it is not in it. */}}
{{- define "lacuna.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* What the labels of this release's pods have in common. */}}
{{- define "lacuna.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ include "lacuna.fullname" . }}
{{- end -}}

{{/* Labels of pods. Nothing in them changes with the chart's version: any change of a Ray pod is a new cluster. And no
app.kubernetes.io/name: KubeRay's services find the head by theirs. Argument: root, component. */}}
{{- define "lacuna.podLabels" -}}
{{- $own := dict "app.kubernetes.io/component" .component -}}
{{- $selector := fromYaml (include "lacuna.selector" .root) -}}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.commonLabels) $own $selector) -}}
{{- end -}}

{{/* Labels of an object. Argument: root, component. */}}
{{- define "lacuna.labels" -}}
{{ include "lacuna.podLabels" . }}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "lacuna.image" -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}

{{- define "lacuna.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lacuna.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What the code says where the values say nothing: see deployments/chart/schema.py. */}}
{{- define "lacuna.defaults" -}}
{{- .Files.Get "files/defaults.json" -}}
{{- end -}}

{{/* Settings over their defaults, key by key: zero, false and empty are settings too. Argument: defaults, given. */}}
{{- define "lacuna.filled" -}}
{{- $filled := deepCopy .defaults -}}
{{- range $key, $value := .given -}}
{{- if not (kindIs "invalid" $value) -}}{{- $_ := set $filled $key $value -}}{{- end -}}
{{- end -}}
{{- toJson $filled -}}
{{- end -}}

{{/* The groups of workers with everything that they leave out. */}}
{{- define "lacuna.workerGroups" -}}
{{- $defaults := (fromJson (include "lacuna.defaults" .)).workerGroup -}}
{{- $groups := list -}}
{{- range .Values.workerGroups -}}
{{- $groups = append $groups (fromJson (include "lacuna.filled" (dict "defaults" $defaults "given" .))) -}}
{{- end -}}
{{- toJson (dict "groups" $groups) -}}
{{- end -}}

{{/* The application's settings with what its Secrets set. */}}
{{- define "lacuna.app" -}}
{{- $app := deepCopy .Values.app -}}
{{- if .Values.apiKeys.existingSecret -}}
{{- $source := ternary (printf "/etc/lacuna/api-keys/%s" .Values.apiKeys.key) "env:LACUNA_API_KEYS" .Values.apiKeys.mount -}}
{{- $_ := set $app "api_keys" $source -}}
{{- end -}}
{{- if .Values.ledger.existingSecret -}}
{{- $_ := set $app "ledger" "env:LACUNA_LEDGER_URL" -}}
{{- end -}}
{{- toYaml $app -}}
{{- end -}}

{{/* The application's settings and the defaults of the others. */}}
{{- define "lacuna.filledApp" -}}
{{- $defaults := (fromJson (include "lacuna.defaults" .)).app -}}
{{- include "lacuna.filled" (dict "defaults" $defaults "given" (fromYaml (include "lacuna.app" .))) -}}
{{- end -}}
