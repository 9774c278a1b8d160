{{/* Envoy's configuration: one port with TLS for HTTP and gRPC, told apart by the content type. */}}
{{- define "lacuna.envoy" -}}
{{- $app := fromJson (include "lacuna.filledApp" .) -}}
{{- $type := "type.googleapis.com/envoy" -}}
node: {id: lacuna, cluster: lacuna}
admin:
  address:
    socket_address: {address: 127.0.0.1, port_value: 9901}
static_resources:
  listeners:
    - name: tls
      address:
        socket_address: {{ include "lacuna.envoyAddress" (dict "root" . "port" 8443) }}
      per_connection_buffer_limit_bytes: 1048576
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": {{ $type }}.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              {{- if .Values.tls.clientCaSecret }}
              require_client_certificate: true
              {{- end }}
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_params:
                  tls_minimum_protocol_version: {{ .Values.tls.minVersion }}
                tls_certificate_sds_secret_configs:
                  - name: server
                    sds_config:
                      path_config_source: {path: /etc/envoy/certificate.yaml}
                {{- if .Values.tls.clientCaSecret }}
                validation_context_sds_secret_config:
                  name: clients
                  sds_config:
                    path_config_source: {path: /etc/envoy/clients.yaml}
                {{- end }}
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {{ $type }}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: tls
                use_remote_address: true
                normalize_path: true
                merge_slashes: true
                path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
                request_headers_timeout: 10s
                # silent streams: the application sends comments, and ends what is too old itself
                stream_idle_timeout: {{ addf $app.max_timeout_s $app.queue_timeout_s 60 | ceil | int }}s
                common_http_protocol_options:
                  idle_timeout: 3600s
                  headers_with_underscores_action: REJECT_REQUEST
                http2_protocol_options:
                  max_concurrent_streams: 1000
                  initial_stream_window_size: 65536
                  initial_connection_window_size: 1048576
                http_filters:
                  - name: envoy.filters.http.buffer
                    typed_config:
                      "@type": {{ $type }}.extensions.filters.http.buffer.v3.Buffer
                      max_request_bytes: {{ int $app.max_body_bytes }}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": {{ $type }}.extensions.filters.http.router.v3.Router
                route_config:
                  name: lacuna
                  virtual_hosts:
                    - name: lacuna
                      domains: ["*"]
                      retry_policy: # nothing has been sent yet
                        retry_on: connect-failure,refused-stream
                        num_retries: 2
                      routes:
                        {{- range .Values.tls.hiddenPaths }}
                        - match: {prefix: {{ . | quote }}}
                          direct_response: {status: 404}
                        {{- end }}
                        - match: {prefix: /, grpc: {}}
                          route: {cluster: grpc, timeout: 0s}
                          typed_per_filter_config:
                            envoy.filters.http.buffer:
                              "@type": {{ $type }}.extensions.filters.http.buffer.v3.BufferPerRoute
                              disabled: true
                        - match: {prefix: /}
                          route: {cluster: http, timeout: 0s}
    - name: status
      address:
        socket_address: {{ include "lacuna.envoyAddress" (dict "root" . "port" 9902) }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {{ $type }}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: status
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": {{ $type }}.extensions.filters.http.router.v3.Router
                route_config:
                  name: status
                  virtual_hosts:
                    - name: status
                      domains: ["*"]
                      routes:
                        - match: {path: /ready}
                          route: {cluster: admin}
                        - match: {path: /stats/prometheus}
                          route: {cluster: admin}
  clusters:
{{ include "lacuna.envoyCluster" (dict "root" . "name" "http" "port" .Values.serve.http.port "health" (dict "http_health_check" (dict "path" "/health"))) | indent 4 }}
{{ include "lacuna.envoyCluster" (dict "root" . "name" "grpc" "port" .Values.serve.grpc.port "health" (dict "grpc_health_check" dict)) | indent 4 }}
    - name: admin
      type: STATIC
      load_assignment:
        cluster_name: admin
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {address: 127.0.0.1, port_value: 9901}
{{- end -}}

{{- define "lacuna.envoyAddress" -}}
{{- if .root.Values.tls.ipv6 -}}
{address: "::", port_value: {{ .port }}, ipv4_compat: true}
{{- else -}}
{address: 0.0.0.0, port_value: {{ .port }}}
{{- end -}}
{{- end -}}

{{/* The pods behind a port. Requests go to those whose application is healthy: a new cluster that still loads its models
gets none. Where no pod is healthy they go to any. Argument: root, name, port, health. */}}
{{- define "lacuna.envoyCluster" -}}
- name: {{ .name }}
  type: STRICT_DNS
  dns_lookup_family: V4_PREFERRED
  connect_timeout: 5s
  lb_policy: LEAST_REQUEST
  common_lb_config:
    healthy_panic_threshold: {value: 1}
  circuit_breakers: # the application's own queue is the limit
    thresholds:
      - {max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}
  health_checks:
    - timeout: 5s
      interval: 5s
      no_traffic_interval: 5s
      unhealthy_threshold: 2
      healthy_threshold: 1
{{ toYaml .health | indent 6 }}
  {{- if eq .name "grpc" }}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config:
        http2_protocol_options:
          connection_keepalive: {interval: 30s, timeout: 5s}
  {{- end }}
  load_assignment:
    cluster_name: {{ .name }}
    endpoints:
      - lb_endpoints:
          - endpoint:
              address:
                socket_address:
                  address: {{ include "lacuna.fullname" .root }}-backend.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
                  port_value: {{ .port }}
{{- end -}}

{{/* Certificates come from watched files: a renewed Secret needs no restart. Argument: secret's name and content. */}}
{{- define "lacuna.envoySecret" -}}
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
{{ toYaml . | indent 4 }}
{{- end -}}
