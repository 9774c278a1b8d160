{{/* What a schema cannot say. Every refusal begins with the name of the value. */}}
{{- define "lacuna.check" -}}
{{- include "lacuna.checkNames" . -}}
{{- include "lacuna.checkLabels" (dict "value" "commonLabels" "labels" .Values.commonLabels) -}}
{{- include "lacuna.checkLabels" (dict "value" "head.labels" "labels" .Values.head.labels) -}}
{{- include "lacuna.checkSecrets" . -}}
{{- include "lacuna.checkGroups" . -}}
{{- include "lacuna.checkModels" . -}}
{{- include "lacuna.checkCluster" . -}}
{{- include "lacuna.checkAccess" . -}}
{{- end -}}

{{- define "lacuna.checkNames" -}}
{{- $name := include "lacuna.fullname" . -}}
{{- if gt (len $name) 47 -}}
{{- fail (printf "fullnameOverride: %q has %d characters, KubeRay allows 47; set a shorter one" $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- fail (printf "fullnameOverride: %q must begin with a letter and hold letters, digits and - only" $name) -}}
{{- end -}}
{{- $ports := list 6379 8080 8265 8404 9101 10001 52365 -}}
{{- range $listener := list "http" "grpc" -}}
{{- $port := int (get $.Values.serve $listener).port -}}
{{- if has $port $ports -}}
{{- fail (printf "serve.%s.port: %d is taken by Ray or by Serve's other port" $listener $port) -}}
{{- end -}}
{{- $ports = append $ports $port -}}
{{- end -}}
{{- end -}}

{{/* KubeRay finds its pods by labels; others must not stand in their place. Argument: value, labels. */}}
{{- define "lacuna.checkLabels" -}}
{{- $value := .value -}}
{{- range $name, $_ := .labels -}}
{{- if or (hasPrefix "ray.io/" $name) (has $name (list "app.kubernetes.io/name" "app.kubernetes.io/created-by")) -}}
{{- fail (printf "%s: %s is KubeRay's" $value $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lacuna.checkSecrets" -}}
{{- if and .Values.apiKeys.existingSecret (hasKey .Values.app "api_keys") -}}
{{- fail "apiKeys.existingSecret: app.api_keys is given too; keep one of them" -}}
{{- end -}}
{{- if and .Values.ledger.existingSecret (hasKey .Values.app "ledger") -}}
{{- fail "ledger.existingSecret: app.ledger is given too; keep one of them" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]+@" (default "" .Values.app.ledger) -}}
{{- fail "app.ledger: a password would stand in the RayService; put the URL into a Secret and name it in ledger.existingSecret" -}}
{{- end -}}
{{- end -}}

{{/* CPUs that Ray sees on a group's pods: as KubeRay counts them, whole ones. */}}
{{- define "lacuna.cpus" -}}
{{- $amount := "" -}}
{{- range list (get .rayStartParams "num-cpus") (dig "limits" "cpu" "" .resources) (dig "requests" "cpu" "" .resources) -}}
{{- if not $amount -}}{{- $amount = toString . -}}{{- end -}}
{{- end -}}
{{- if hasSuffix "m" $amount -}}
{{- ceil (divf (float64 (trimSuffix "m" $amount)) 1000) -}}
{{- else if $amount -}}
{{- ceil (float64 $amount) -}}
{{- end -}}
{{- end -}}

{{- define "lacuna.checkGroups" -}}
{{- $names := list -}}
{{- $pods := 0 -}}
{{- range $index, $group := (fromJson (include "lacuna.workerGroups" .)).groups -}}
{{- $where := printf "workerGroups[%d]" $index -}}
{{- if has $group.name $names -}}
{{- fail (printf "%s.name: %q occurs twice" $where $group.name) -}}
{{- end -}}
{{- $names = append $names $group.name -}}
{{- include "lacuna.checkLabels" (dict "value" (printf "%s.labels" $where) "labels" $group.labels) -}}
{{- $pods = add $pods (int $group.minReplicas) -}}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) -}}
{{- fail (printf "%s.minReplicas: %d exceeds maxReplicas %d" $where (int $group.minReplicas) (int $group.maxReplicas)) -}}
{{- end -}}
{{- if and (lt (int $group.minReplicas) (int $group.maxReplicas)) (not $.Values.autoscaler.enabled) -}}
{{- fail (printf "%s.maxReplicas: beyond minReplicas only with autoscaler.enabled" $where) -}}
{{- end -}}
{{- if not (include "lacuna.cpus" $group) -}}
{{- fail (printf "%s.resources: requests.cpu is needed, it is what Ray places engines by" $where) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (int $pods) 0) (not .Values.head.servesTraffic) -}}
{{- fail "head.servesTraffic: needed where no group of workers has minReplicas above 0, or nobody could take the request that starts a pod" -}}
{{- end -}}
{{- end -}}

{{/* Whether a rank of each model fits into some pod, and all ranks that must run into all pods that may be. */}}
{{- define "lacuna.checkModels" -}}
{{- $defaults := fromJson (include "lacuna.defaults" .) -}}
{{- $groups := (fromJson (include "lacuna.workerGroups" .)).groups -}}
{{- $needed := 0.0 -}}
{{- $always := 0 -}}
{{- $present := 0.0 -}}
{{- range $groups -}}
{{- $pods := mul .maxReplicas .numOfHosts -}}
{{- $present = addf $present (mul $pods (include "lacuna.gpus" . | int)) -}}
{{- end -}}
{{- range $index, $given := .Values.app.models -}}
{{- $model := fromJson (include "lacuna.filled" (dict "defaults" $defaults.model "given" $given)) -}}
{{- $engine := fromJson (include "lacuna.filled" (dict "defaults" $defaults.engine "given" $model.engine)) -}}
{{- $ranks := max (int $engine.tensor_parallel_size) (int $engine.expert_parallel_size) -}}
{{- $together := ternary $ranks 1 (eq $model.placement_strategy "STRICT_PACK") -}}
{{- $cpusOfPod := mulf $together $model.num_cpus -}}
{{- $gpusOfPod := mulf $together $model.num_gpus -}}
{{- $fits := false -}}
{{- range $groups -}}
{{- $cpus := float64 (include "lacuna.cpus" .) -}}
{{- $gpus := float64 (include "lacuna.gpus" .) -}}
{{- if and (ge $cpus $cpusOfPod) (ge $gpus $gpusOfPod) -}}{{- $fits = true -}}{{- end -}}
{{- end -}}
{{- if not $fits -}}
{{- $remedy := ternary (printf "; its %d ranks stay in one pod unless placement_strategy is PACK" $ranks) "" (gt $together 1) -}}
{{- fail (printf "workerGroups: no group has pods with the %v CPUs and %v GPUs (resources.limits, e.g. nvidia.com/gpu) that app.models[%d] (%s) asks for by num_cpus and num_gpus%s" $cpusOfPod $gpusOfPod $index $model.id $remedy) -}}
{{- end -}}
{{- $replicas := $model.num_replicas -}}
{{- if $model.autoscaling -}}{{- $replicas = get $model.autoscaling "min_replicas" | default 0 -}}{{- end -}}
{{- $always = add $always (int $replicas) -}}
{{- $needed = addf $needed (mulf $replicas $ranks $model.num_gpus) -}}
{{- $folder := printf "%s/" (trimSuffix "/" $.Values.checkpoints.mountPath) -}}
{{- $volume := or $.Values.checkpoints.existingClaim $.Values.checkpoints.hostPath $.Values.checkpoints.volume -}}
{{- if and (hasPrefix $folder $model.path) (not $volume) -}}
{{- fail (printf "checkpoints.existingClaim: app.models[%d].path %s lies on a volume that nobody names (or hostPath, volume)" $index $model.path) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (int $always) 0) (not .Values.head.servesTraffic) -}}
{{- fail "head.servesTraffic: needed where every one of app.models may have no replica; Serve then runs a proxy only where Ray put the ingress, which may be the head" -}}
{{- end -}}
{{- if gt $needed $present -}}
{{- fail (printf "workerGroups: all groups at maxReplicas have %v GPUs, the replicas and ranks of app.models need %v" $present $needed) -}}
{{- end -}}
{{- end -}}

{{- define "lacuna.checkCluster" -}}
{{- $app := fromJson (include "lacuna.filledApp" .) -}}
{{- $least := int (ceil (addf $app.graceful_shutdown_timeout_s 30)) -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is too short; app.graceful_shutdown_timeout_s (%v) and the 30 s in which Ray drains a node make %d" (int .Values.terminationGracePeriodSeconds) $app.graceful_shutdown_timeout_s $least) -}}
{{- end -}}
{{- if gt (len (compact (list .Values.checkpoints.existingClaim .Values.checkpoints.hostPath .Values.checkpoints.volume))) 1 -}}
{{- fail "checkpoints: give one of existingClaim, hostPath and volume" -}}
{{- end -}}
{{- with .Values.gcsFaultTolerance -}}
{{- if and (eq .backend "redis") (not .redis.address) -}}
{{- fail "gcsFaultTolerance.redis.address: needed by backend redis" -}}
{{- end -}}
{{- range $field := list "username" "password" -}}
{{- $secret := get $.Values.gcsFaultTolerance.redis $field -}}
{{- if and $secret.name (not $secret.key) -}}
{{- fail (printf "gcsFaultTolerance.redis.%s.key: needed, it is the entry of the Secret %s" $field $secret.name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .backend "rocksdb") .rocksdb.claimName (ne $.Values.upgradeStrategy.type "None") -}}
{{- fail "gcsFaultTolerance.rocksdb.claimName: two heads would write into it during an upgrade; set upgradeStrategy.type to None or let KubeRay make the volume" -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.upgradeStrategy.type "NewClusterWithIncrementalUpgrade" -}}
{{- if not .Values.upgradeStrategy.incremental.gatewayClassName -}}
{{- fail "upgradeStrategy.incremental.gatewayClassName: needed by NewClusterWithIncrementalUpgrade" -}}
{{- end -}}
{{- if not .Values.autoscaler.enabled -}}
{{- fail "autoscaler.enabled: needed by upgradeStrategy.type NewClusterWithIncrementalUpgrade" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lacuna.checkAccess" -}}
{{- $app := fromJson (include "lacuna.filledApp" .) -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) -}}
{{- fail "tls.existingSecret: needed by tls.enabled, a Secret with tls.crt and tls.key" -}}
{{- end -}}
{{- with .Values.monitoring.podMonitor -}}
{{- if and .enabled $app.api_keys (not .apiKeySecret.name) (not (has "/metrics" $app.open_paths)) -}}
{{- fail "monitoring.podMonitor.apiKeySecret.name: needed, /metrics asks for an API key (or put it into app.open_paths)" -}}
{{- end -}}
{{- if and .apiKeySecret.name (not .apiKeySecret.key) -}}
{{- fail "monitoring.podMonitor.apiKeySecret.key: needed, it is the entry of the Secret" -}}
{{- end -}}
{{- if and .enabled $.Values.networkPolicy.enabled (not $.Values.networkPolicy.metrics) -}}
{{- fail "networkPolicy.metrics: admits nobody, so monitoring.podMonitor could not scrape; name Prometheus" -}}
{{- end -}}
{{- end -}}
{{- end -}}
