"""Who gets in: services, the TLS proxy, network policies, disruption budgets, monitoring, notes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.helm.charts import CHART, Objects, chart, example, find, load_yaml, merged, render, split

PRODUCTION = example(CHART.parent / "examples" / "production.yaml")
ENVOY = os.environ.get("LACUNA_TEST_ENVOY") or shutil.which("envoy")
RAY_PODS = {"matchLabels": {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/part-of": "demo-lacuna"}}


def envoy(objects: Objects) -> dict[str, Any]:
    text: str = find(objects, "ConfigMap", "-proxy")["data"]["envoy.yaml"]
    config: dict[str, Any] = load_yaml(text)
    return config["static_resources"]


def routes(objects: Objects) -> list[dict[str, Any]]:
    (chain,) = envoy(objects)["listeners"][0]["filter_chains"]
    found: list[dict[str, Any]] = manager(chain)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def manager(chain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = chain["filters"][0]["typed_config"]
    return found


def test_the_backend_names_the_pods_that_serve() -> None:
    spec = find(render({}), "Service", "-backend")["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["selector"] == RAY_PODS["matchLabels"] | {"ray.io/serve": "true"}
    assert {port["name"]: port["port"] for port in spec["ports"]} == {"http": 8000, "grpc": 9000}


def test_grpc_is_told_from_http_by_what_it_is() -> None:
    *hidden, grpc, http = routes(render(PRODUCTION))
    assert [(one["match"], one["direct_response"]) for one in hidden] == [
        ({"prefix": path}, {"status": 404}) for path in ("/metrics", "/-/", "/grpc.reflection.")
    ]
    assert (grpc["match"], grpc["route"]["cluster"]) == ({"prefix": "/", "grpc": {}}, "grpc")
    assert (http["match"], http["route"]["cluster"]) == ({"prefix": "/"}, "http")


def test_the_proxy_knows_the_pods_and_only_what_it_defines() -> None:
    static = envoy(render(merged(PRODUCTION, {"serve": {"http": {"port": 8001}}}), name="svc", namespace="team"))
    addresses = {
        cluster["name"]: cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for cluster in static["clusters"]
    }
    host = "svc-lacuna-backend.team.svc.cluster.local"
    assert addresses["http"]["socket_address"] == {"address": host, "port_value": 8001}
    assert addresses["grpc"]["socket_address"] == {"address": host, "port_value": 9000}
    used = set(json.dumps(static).split('"cluster": "')[1:])
    assert {one.split('"')[0] for one in used} == set(addresses)


def test_the_proxys_limits_are_the_applications() -> None:
    objects = render(
        merged(PRODUCTION, {"app": {"max_body_bytes": 12345, "max_timeout_s": 600, "queue_timeout_s": 30}})
    )
    config = manager(envoy(objects)["listeners"][0]["filter_chains"][0])
    assert config["http_filters"][0]["typed_config"]["max_request_bytes"] == 12345
    assert config["stream_idle_timeout"] == "690s"


def test_certificates_are_read_from_the_named_secrets() -> None:
    objects = render(merged(PRODUCTION, {"tls": {"clientCaSecret": "clients", "minVersion": "TLSv1_3"}}))
    pod = find(objects, "Deployment", "-proxy")["spec"]["template"]["spec"]
    secrets = {one["name"]: one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
    assert secrets == {"tls": "lacuna-tls", "clients": "clients"}
    files = find(objects, "ConfigMap", "-proxy")["data"]
    (server,) = load_yaml(files["certificate.yaml"])["resources"]
    assert server["tls_certificate"]["private_key"] == {"filename": "/etc/lacuna/tls/tls.key"}
    context = envoy(objects)["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"]
    assert context["require_client_certificate"] is True
    assert context["common_tls_context"]["tls_params"] == {"tls_minimum_protocol_version": "TLSv1_3"}
    without = envoy(render(PRODUCTION))["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"]
    assert "require_client_certificate" not in without


def test_another_configuration_restarts_the_proxy() -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = find(render(values), "Deployment", "-proxy")["spec"]["template"]
        text: str = template["metadata"]["annotations"]["checksum/config"]
        return text

    assert checksum(PRODUCTION) == checksum(merged(PRODUCTION, {"tls": {"replicas": 5}}))
    assert checksum(PRODUCTION) != checksum(merged(PRODUCTION, {"tls": {"hiddenPaths": []}}))


@pytest.mark.skipif(ENVOY is None, reason="no program `envoy` here, nor named by LACUNA_TEST_ENVOY")
@pytest.mark.parametrize("change", [{}, {"clientCaSecret": "clients", "ipv6": True}])
def test_envoy_accepts_its_configuration(change: dict[str, Any], tmp_path: Path) -> None:
    for name, text in find(render(merged(PRODUCTION, {"tls": change})), "ConfigMap", "-proxy")["data"].items():
        (tmp_path / name).write_text(text.replace("/etc/envoy", str(tmp_path)).replace("/etc/lacuna", str(tmp_path)))
    command = [
        str(ENVOY),
        "--mode",
        "validate",
        "--config-path",
        str(tmp_path / "envoy.yaml"),
        "--log-level",
        "warning",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "eprecated" not in done.stderr


def test_with_tls_only_the_proxy_reaches_the_plain_ports() -> None:
    objects = render(PRODUCTION)
    proxy = find(objects, "NetworkPolicy", "-proxy")["spec"]
    assert proxy["ingress"][0]["from"] == [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    assert ports_of(proxy["ingress"][0]) == ["tls"]
    own, operator, metrics = find(objects, "NetworkPolicy", "-ray")["spec"]["ingress"]
    assert own == {"from": [{"podSelector": RAY_PODS}]}
    assert ports_of(operator) == ["dashboard", "serve"]
    assert ports_of(metrics) == ["metrics", "serve"]


def test_without_tls_clients_reach_serve() -> None:
    clients = [{"namespaceSelector": {"matchLabels": {"team": "chat"}}}]
    objects = render({"networkPolicy": {"enabled": True, "clients": clients, "dashboard": clients}})
    _, _, serve, dashboard = find(objects, "NetworkPolicy")["spec"]["ingress"]
    assert (serve["from"], ports_of(serve)) == (clients, ["serve", "serve-grpc"])
    assert (dashboard["from"], ports_of(dashboard)) == (clients, ["dashboard"])


def test_empty_lists_admit_nobody() -> None:
    closed = {"networkPolicy": {"clients": [], "metrics": []}, "monitoring": {"podMonitor": {"enabled": False}}}
    objects = render(merged(PRODUCTION, closed))
    assert "ingress" not in find(objects, "NetworkPolicy", "-proxy")["spec"]
    assert len(find(objects, "NetworkPolicy", "-ray")["spec"]["ingress"]) == 2


def ports_of(rule: dict[str, Any]) -> list[str]:
    return [port["port"] for port in rule["ports"]]


def test_the_policies_ports_are_ports_of_the_pods() -> None:
    objects = render(PRODUCTION)
    named = {port["name"] for template in all_templates(objects) for port in template["containers"][0]["ports"]}
    for policy in (one for one in objects if one["kind"] == "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule.get("ports", [])} <= named


def all_templates(objects: Objects) -> list[dict[str, Any]]:
    cluster = find(objects, "RayService")["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"], find(objects, "Deployment")["spec"]]
    return [group["template"]["spec"] for group in groups]


def test_budgets_are_of_the_kind_that_kubernetes_allows() -> None:
    objects = render(PRODUCTION)
    assert find(objects, "PodDisruptionBudget", "-workers")["spec"]["minAvailable"] == 2
    assert find(objects, "PodDisruptionBudget", "-proxy")["spec"]["maxUnavailable"] == 1


def test_the_application_is_scraped_once_and_ray_everywhere() -> None:
    objects = render(PRODUCTION)
    app, ray = (find(objects, "PodMonitor", suffix)["spec"] for suffix in ("-app", "-ray"))
    assert app["selector"]["matchLabels"]["app.kubernetes.io/component"] == "ray-head"
    (endpoint,) = app["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("serve", "/metrics")
    assert endpoint["authorization"]["credentials"] == {"name": "lacuna-scraper", "key": "api-key"}
    assert ray["selector"]["matchExpressions"][0]["values"] == ["ray-head", "ray-worker"]
    assert ray["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "15s"}]
    assert find(objects, "PodMonitor", "-app")["metadata"]["labels"]["release"] == "prometheus"


def test_open_metrics_need_no_key() -> None:
    values = merged(PRODUCTION, {"monitoring": {"podMonitor": {"apiKeySecret": {"name": ""}}}})
    open_paths = ["/health", "/metrics"]
    app = find(render(merged(values, {"app": {"open_paths": open_paths}})), "PodMonitor", "-app")
    assert "authorization" not in app["spec"]["podMetricsEndpoints"][0]


def test_dashboards_and_rules_of_the_chart_are_shipped(tmp_path: Path) -> None:
    copy = shutil.copytree(CHART, tmp_path / "lacuna")
    dashboard, rules = {"title": "Lacuna {{model}}"}, {"groups": [{"name": "lacuna", "rules": []}]}
    for name, content in {"dashboards/one.json": dashboard, "rules/one.yaml": rules}.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(json.dumps(content))
    text = helm_python.Chart.load(copy).render(PRODUCTION, name="demo", namespace="llm")[
        "lacuna/templates/monitoring.yaml"
    ]
    objects = [one for one in split(text) if one]
    config = find(objects, "ConfigMap", "-dashboards")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["one.json"]) == dashboard
    assert find(objects, "PrometheusRule", "-one")["spec"] == rules


def notes(values: dict[str, Any]) -> str:
    return chart().render(values, name="demo", namespace="llm")["lacuna/templates/NOTES.txt"]


def test_notes_say_what_to_type_and_what_is_open() -> None:
    default = notes({})
    assert "port-forward svc/demo-lacuna-serve-svc 8000:8000" in default
    assert "grpcurl -plaintext 127.0.0.1:9000" in default
    for value in ("apiKeys.existingSecret", "tls.enabled", "networkPolicy.enabled", "gcsFaultTolerance.backend"):
        assert f"({value})" in default


def test_notes_of_a_closed_service() -> None:
    closed = notes(PRODUCTION)
    assert 'curl -k https://127.0.0.1:8443/v1/models -H "Authorization: Bearer $LACUNA_KEY"' in closed
    assert "Note:" not in closed
