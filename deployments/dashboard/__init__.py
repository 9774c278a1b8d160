"""Grafana's dashboard, Prometheus' alert rules and the table of metrics, generated from the metrics' catalogue."""
