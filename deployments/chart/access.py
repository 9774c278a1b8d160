"""Values about who gets in: secrets, TLS, network policy, monitoring."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deployments.chart.kubernetes import (
    AsInKubernetes,
    Labels,
    Peer,
    Resources,
    SecretKey,
    Section,
    Toleration,
)
from deployments.chart.pods import Image


class ApiKeys(Section):
    """The Secret with the list of API keys ({name, sha256} each, see `lacuna keys new`) for `app.api_keys`."""

    existing_secret: str = Field(default="", description="Name of the Secret; empty: what `app.api_keys` says.")
    key: str = Field(default="api-keys", min_length=1, description="Its entry with the list, as YAML or JSON.")
    mount: bool = Field(default=False, description="Give it as a file instead of an environment variable.")


class Ledger(Section):
    """The Secret with the URL of the experiments' database, password included, for `app.ledger`."""

    existing_secret: str = Field(default="", description="Name of the Secret; empty: what `app.ledger` says.")
    key: str = Field(default="url", min_length=1, description="Its entry with postgresql://USER:PASSWORD@HOST/NAME.")


class RayAuth(Section):
    """Ray's own token, for its dashboard, its state and its processes (not for Serve's ports). KubeRay 1.6."""

    mode: Literal["token", "disabled"] = Field(default="token", description="Whether Ray asks for a token.")
    existing_secret: str = Field(
        default="", description="Secret with the entry auth_token; empty: KubeRay makes one per cluster."
    )


class ProxyService(Section):
    """The Service in front of the TLS proxy."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = Field(default="ClusterIP", description="Kind of Service.")
    port: int = Field(default=443, ge=1, le=65535, description="Port for HTTP and gRPC.")
    annotations: Labels = Field(default={}, description="E.g. of the cloud's load balancer.")
    load_balancer_source_ranges: list[str] = Field(default=[], description="Addresses that may connect; empty: all.")


class Tls(Section):
    """Envoy in front of both protocols: TLS, one port, limits, health of the pods behind it."""

    enabled: bool = Field(default=False, description="Run it. Serve's own ports stay plain text inside the cluster.")
    existing_secret: str = Field(default="", description="Secret with tls.crt and tls.key; replaced files are reread.")
    min_version: Literal["TLSv1_2", "TLSv1_3"] = Field(default="TLSv1_2", description="Oldest version of TLS.")
    client_ca_secret: str = Field(
        default="", description="Secret with ca.crt: clients need a certificate of this authority; empty: none needed."
    )
    ipv6: bool = Field(default=False, description="Listen on IPv6 too; nodes must have it.")
    replicas: int = Field(default=2, ge=1, description="Pods of the proxy.")
    image: Image = Field(
        default=Image(repository="envoyproxy/envoy", tag="v1.40.0"), description="Image with envoy and sleep."
    )
    service: ProxyService = Field(default=ProxyService(), description="The Service that clients connect to.")
    hidden_paths: list[str] = Field(
        default=["/metrics", "/-/"],
        description="Prefixes of paths that nobody reaches through the proxy (add /grpc.reflection. to close it).",
    )
    drain_seconds: int = Field(default=60, ge=0, description="How long streams may go on when a proxy pod is stopped.")
    resources: Resources = Field(default=Resources(), description="Of each proxy.")
    node_selector: Labels = Field(default={}, description="Labels that nodes must have.")
    tolerations: list[Toleration] = Field(default=[], description="Taints of nodes that the proxy accepts.")
    affinity: AsInKubernetes = Field(default={}, description="As in a pod's spec.")


class NetworkPolicy(Section):
    """Who may connect to the pods. Pods of the release may always reach each other; outgoing traffic is not limited."""

    enabled: bool = Field(default=False, description="Make the policies. The cluster's network must enforce them.")
    clients: list[Peer] = Field(
        default=[], description="Who may reach HTTP and gRPC (with `tls`: the proxy, and only it). Empty: nobody."
    )
    metrics: list[Peer] = Field(default=[], description="Who may scrape metrics. Empty: nobody.")
    dashboard: list[Peer] = Field(default=[], description="Who may reach Ray's dashboard. Empty: only the operator.")
    operator: list[Peer] = Field(
        default=[
            Peer(namespace_selector={}, pod_selector={"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}})
        ],
        min_length=1,
        description="KubeRay's operator, which deploys through the dashboard and checks the proxies.",
    )


class PodMonitor(Section):
    """What the Prometheus operator scrapes: Ray's metrics of every pod, and the application's once, at the head."""

    enabled: bool = Field(default=False, description="Make the PodMonitors; needs the Prometheus operator.")
    interval: str = Field(default="15s", pattern=r"^\d+(ms|s|m|h)$", description="Time between scrapes.")
    labels: Labels = Field(default={}, description="Labels by which Prometheus finds them, e.g. {release: prometheus}.")
    api_key_secret: SecretKey = Field(
        default=SecretKey(), description="Where keys are needed: the Secret with one for /metrics."
    )


class PrometheusRule(Section):
    """Alerts of the chart's folder `rules`."""

    enabled: bool = Field(default=False, description="Make the PrometheusRule; needs the Prometheus operator.")
    labels: Labels = Field(default={}, description="Labels by which Prometheus finds it.")


class Dashboards(Section):
    """Grafana dashboards of the chart's folder `dashboards`, for Grafana's sidecar."""

    enabled: bool = Field(default=False, description="Make a ConfigMap of them.")
    labels: Labels = Field(default={"grafana_dashboard": "1"}, description="Labels by which the sidecar finds it.")
    annotations: Labels = Field(default={}, description="E.g. the dashboards' folder.")


class Monitoring(Section):
    """Metrics, alerts and dashboards."""

    pod_monitor: PodMonitor = Field(default=PodMonitor(), description="Scraping.")
    prometheus_rule: PrometheusRule = Field(default=PrometheusRule(), description="Alerts.")
    dashboards: Dashboards = Field(default=Dashboards(), description="Dashboards.")


class PodDisruptionBudget(Section):
    """How many Ray worker pods must remain when nodes are drained. Kubernetes allows only a number for such pods."""

    enabled: bool = Field(default=False, description="Make it; with TLS one for the proxy is always made.")
    min_available: int = Field(
        default=1, ge=1, description="Fewer than there always are, or nodes cannot be drained at all."
    )
