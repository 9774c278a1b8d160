"""values.yaml as a type. ``app`` is AppConfig itself; everything else says where and how it runs on Kubernetes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from deployments.chart.access import ApiKeys, Ledger, Monitoring, NetworkPolicy, PodDisruptionBudget, RayAuth, Tls
from deployments.chart.kubernetes import (
    AsInKubernetes,
    EnvVar,
    Labels,
    Quantity,
    Resources,
    SecretKey,
    Section,
    VolumeMount,
)
from deployments.chart.pods import Checkpoints, Head, Image, Probes, PullSecret, WorkerGroup
from deployments.config import AppConfig


class Listener(Section):
    """A port of Serve's proxies."""

    port: int = Field(ge=1024, le=65535, description="Port of the pods and of their services.")
    request_timeout_s: float | None = Field(
        default=None,
        gt=0,
        description="Serve ends a request after so long; empty: the application's own deadlines. New clusters only.",
    )


class Serve(Section):
    """Ray Serve's own settings."""

    http: Listener = Field(default=Listener(port=8000), description="OpenAI's API.")
    grpc: Listener = Field(default=Listener(port=9000), description="gRPC, in plain text.")
    ha_proxy: bool = Field(
        default=False, description="HAProxy instead of Serve's proxy in Python: less CPU per request and chunk."
    )
    throughput_optimized: bool = Field(
        default=False, description="Serve's settings for throughput, as one flag on every pod."
    )
    autoscaling_metrics_interval_s: float = Field(
        default=1, gt=0, description="How often the router's load reaches the decision about replicas."
    )


class Autoscaler(Section):
    """Ray's autoscaler v2, which asks Kubernetes for pods when replicas find no place."""

    enabled: bool = Field(default=False, description="Run it beside the head.")
    idle_timeout_seconds: int = Field(default=300, ge=0, description="Pods without work go after so long.")
    upscaling_mode: Literal["Default", "Conservative", "Aggressive"] = Field(
        default="Default", description="Conservative: at most doubles the cluster at a time."
    )
    resources: Resources = Field(
        default=Resources(requests={"cpu": "200m", "memory": "512Mi"}, limits={"memory": "512Mi"}),
        description="Of the autoscaler's container.",
    )


class Redis(Section):
    """An external Redis that holds the cluster's state."""

    address: str = Field(default="", description="HOST:PORT or redis://HOST:PORT.")
    username: SecretKey = Field(default=SecretKey(), description="Secret with the user's name.")
    password: SecretKey = Field(default=SecretKey(), description="Secret with the password.")
    external_storage_namespace: str = Field(default="", description="Prefix of the keys; empty: the cluster's id.")


class RocksDb(Section):
    """A database on a volume of the head. One writer only: a claim must never be shared by two heads at once."""

    size: Quantity = Field(default="1Gi", description="Size of the volume that KubeRay makes.")
    storage_class_name: str = Field(default="", description="Its storage class; empty: the default one.")
    claim_name: str = Field(default="", description="A claim of your own instead.")
    deletion_policy: Literal["DeleteWithCluster", "Retain"] = Field(
        default="DeleteWithCluster", description="What becomes of the volume when the cluster goes."
    )


class GcsFaultTolerance(Section):
    """Whether the cluster survives the loss of its head. Without it the head's death is the cluster's."""

    backend: Literal["none", "redis", "rocksdb"] = Field(
        default="none",
        description="rocksdb is alpha: KubeRay 1.7 with the feature gate GCSFaultToleranceEmbeddedStorage.",
    )
    redis: Redis = Field(default=Redis(), description="For backend redis.")
    rocksdb: RocksDb = Field(default=RocksDb(), description="For backend rocksdb.")


class IncrementalUpgrade(Section):
    """Steps of NewClusterWithIncrementalUpgrade."""

    gateway_class_name: str = Field(default="", description="Class of the Gateway that shifts the HTTP traffic.")
    step_size_percent: int = Field(default=10, ge=1, le=100, description="Traffic that moves at each step.")
    interval_seconds: int = Field(default=30, ge=1, description="Time between steps.")
    max_surge_percent: int = Field(default=100, ge=1, le=100, description="Capacity that is added at a time.")


class Upgrade(Section):
    """What happens when the cluster's part of the values changes. Changes of `app` are applied in place."""

    type: Literal["NewCluster", "None", "NewClusterWithIncrementalUpgrade"] = Field(
        default="NewCluster",
        description="NewCluster starts a second cluster and switches to it (twice the nodes for a while); None changes "
        "nothing that runs; NewClusterWithIncrementalUpgrade shifts HTTP step by step and cannot route gRPC.",
    )
    incremental: IncrementalUpgrade = Field(default=IncrementalUpgrade(), description="For the incremental upgrade.")
    cluster_deletion_delay_seconds: int = Field(
        default=60, ge=0, description="How long the old cluster stays after the switch."
    )


class ServiceAccount(Section):
    """The pods' identity. Only the head's token is mounted, for the autoscaler."""

    create: bool = Field(default=True, description="Make one.")
    name: str = Field(default="", description="Its name; empty: the release's (or `default` where none is made).")
    annotations: Labels = Field(default={}, description="E.g. of the cloud's workload identity.")


class ChartValues(Section):
    """All values of the chart."""

    global_values: dict[str, Any] = Field(default={}, alias="global", description="Of a chart around this one; unused.")
    fullname_override: str = Field(
        default="", max_length=47, description="Name of everything instead of the release's."
    )
    common_labels: Labels = Field(default={}, description="Labels of every object and pod.")
    cluster_domain: str = Field(default="cluster.local", min_length=1, description="DNS domain of the cluster.")
    image: Image = Field(
        default=Image(repository="lacuna-serve", tag="0.1.0"), description="Image with lacuna-serve, for every Ray pod."
    )
    image_pull_secrets: list[PullSecret] = Field(default=[], description="Credentials of the images' registries.")
    ray_version: str = Field(default="2.60.0", pattern=r"^\d+\.\d+\.\d+$", description="Ray's version in the image.")
    app: AppConfig = Field(default=AppConfig(), description="The application's settings.")
    serve: Serve = Field(default=Serve(), description="Ports and flags of Ray Serve.")
    api_keys: ApiKeys = Field(default=ApiKeys(), description="API keys from a Secret.")
    ledger: Ledger = Field(default=Ledger(), description="The experiments' database from a Secret.")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="The volume with the models.")
    head: Head = Field(default=Head(), description="Ray's head.")
    worker_groups: list[WorkerGroup] = Field(
        default=[WorkerGroup(name="cpu")], min_length=1, description="Kinds of worker pods."
    )
    env: list[EnvVar] = Field(default=[], description="Environment variables of every Ray pod.")
    extra_volumes: list[AsInKubernetes] = Field(default=[], description="Volumes of every Ray pod, as in a pod's spec.")
    extra_volume_mounts: list[VolumeMount] = Field(default=[], description="Where they appear.")
    pod_security_context: AsInKubernetes = Field(
        default={
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        description="As in a pod's spec; 1000 is the image's user.",
    )
    security_context: AsInKubernetes = Field(
        default={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        description="As in a container.",
    )
    probes: Probes = Field(default=Probes(), description="Checks of the Ray pods.")
    termination_grace_period_seconds: int = Field(
        default=120,
        ge=1,
        description="At least app.graceful_shutdown_timeout_s and the 30 s in which Ray drains a node.",
    )
    autoscaler: Autoscaler = Field(default=Autoscaler(), description="Pods by demand.")
    ray_auth: RayAuth = Field(default=RayAuth(), description="Ray's token.")
    gcs_fault_tolerance: GcsFaultTolerance = Field(default=GcsFaultTolerance(), description="Survival of the head.")
    upgrade_strategy: Upgrade = Field(default=Upgrade(), description="How the cluster is replaced.")
    service_account: ServiceAccount = Field(default=ServiceAccount(), description="The pods' identity.")
    tls: Tls = Field(default=Tls(), description="TLS for HTTP and gRPC.")
    network_policy: NetworkPolicy = Field(default=NetworkPolicy(), description="Who may connect.")
    pod_disruption_budget: PodDisruptionBudget = Field(default=PodDisruptionBudget(), description="Draining of nodes.")
    monitoring: Monitoring = Field(default=Monitoring(), description="Metrics, alerts, dashboards.")
