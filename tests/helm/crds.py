"""Fields of the custom resources that the chart may make, written from their API references: KubeRay 1.7 (ray.io/v1)
and the Prometheus operator (monitoring.coreos.com/v1). Others are refused; pod templates are checked as Pods.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
FLAG = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
ANY = {"type": "object"}


def record(required: tuple[str, ...] = (), /, **fields: object) -> dict[str, Any]:
    """A mapping with these fields and no others."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": fields}


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def sequence(items: object) -> dict[str, Any]:
    return {"type": "array", "items": items}


SECRET_KEY = record(("name", "key"), name=TEXT, key=TEXT)
CREDENTIAL = record(valueFrom=record(("secretKeyRef",), secretKeyRef=SECRET_KEY), value=TEXT)
RESOURCES = record(requests=ANY, limits=ANY)
LABELS = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^([A-Za-z0-9]([\w.-]{0,61}\w)?)?$"}}
NAME = {"type": "string", "pattern": r"^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}
METADATA = record(("name", "namespace"), name=NAME, namespace=NAME, labels=LABELS, annotations=TEXTS)

HEAD_GROUP = record(
    ("template", "rayStartParams"),
    template=ANY,
    headService=ANY,
    enableIngress=FLAG,
    resources=TEXTS,
    labels=LABELS,
    rayStartParams=TEXTS,
    serviceType=TEXT,
)
WORKER_GROUP = record(
    ("groupName", "minReplicas", "maxReplicas", "template", "rayStartParams"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts={"type": "integer", "minimum": 1},
    idleTimeoutSeconds=COUNT,
    priority={"type": "integer"},
    resources=TEXTS,
    labels=LABELS,
    rayStartParams=TEXTS,
    template=ANY,
)
AUTOSCALER = record(
    version=one_of("v1", "v2"),
    idleTimeoutSeconds=COUNT,
    upscalingMode=one_of("Default", "Aggressive", "Conservative"),
    resources=RESOURCES,
    securityContext=ANY,
    image=TEXT,
    imagePullPolicy=TEXT,
    env=sequence(ANY),
    envFrom=sequence(ANY),
    volumeMounts=sequence(ANY),
)
GCS_STORAGE = record(
    claimName=TEXT,
    size=TEXT,
    storageClassName=TEXT,
    accessModes=sequence(TEXT),
    subPath=TEXT,
    deletionPolicy=one_of("DeleteWithCluster", "Retain"),
)
GCS_OPTIONS = record(
    backend=one_of("redis", "rocksdb"),
    redisAddress=TEXT,
    redisUsername=CREDENTIAL,
    redisPassword=CREDENTIAL,
    externalStorageNamespace=TEXT,
    storage=GCS_STORAGE,
)
RAY_CLUSTER = record(
    ("headGroupSpec",),
    rayVersion=TEXT,
    authOptions=record(mode=one_of("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=FLAG),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    gcsFaultToleranceOptions=GCS_OPTIONS,
    headServiceAnnotations=TEXTS,
    suspend=FLAG,
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs=sequence(WORKER_GROUP),
)
UPGRADE = record(
    type=one_of("NewCluster", "None", "NewClusterWithIncrementalUpgrade"),
    clusterUpgradeOptions=record(
        ("gatewayClassName", "stepSizePercent", "intervalSeconds"),
        gatewayClassName=TEXT,
        stepSizePercent={"type": "integer", "minimum": 0, "maximum": 100},
        intervalSeconds={"type": "integer", "minimum": 1},
        maxSurgePercent={"type": "integer", "minimum": 0, "maximum": 100},
    ),
)
RAY_SERVICE = record(
    ("rayClusterConfig",),
    serveConfigV2=TEXT,
    serveService=ANY,
    upgradeStrategy=UPGRADE,
    rayClusterDeletionDelaySeconds=COUNT,
    excludeHeadPodFromServeSvc=FLAG,
    suspend=FLAG,
    rayClusterConfig=RAY_CLUSTER,
)
POD_MONITOR = record(
    ("selector", "podMetricsEndpoints"),
    selector=record(matchLabels=LABELS, matchExpressions=sequence(ANY)),
    namespaceSelector=ANY,
    podTargetLabels=sequence(TEXT),
    jobLabel=TEXT,
    podMetricsEndpoints=sequence(
        record(
            port=TEXT,
            path=TEXT,
            interval=TEXT,
            scheme=TEXT,
            honorLabels=FLAG,
            authorization=record(type=TEXT, credentials=SECRET_KEY),
            relabelings=sequence(ANY),
        )
    ),
)
RULE = record(("expr",), alert=TEXT, record=TEXT, expr=TEXT, keep_firing_for=TEXT, labels=TEXTS, annotations=TEXTS)
RULE["properties"]["for"] = TEXT
PROMETHEUS_RULE = record(
    ("groups",), groups=sequence(record(("name", "rules"), name=TEXT, interval=TEXT, rules=sequence(RULE)))
)


def resource(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return record(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )


SCHEMAS = {
    "RayService": resource("ray.io/v1", "RayService", RAY_SERVICE),
    "PodMonitor": resource("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
    "PrometheusRule": resource("monitoring.coreos.com/v1", "PrometheusRule", PROMETHEUS_RULE),
}
