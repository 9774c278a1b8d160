"""Values that cannot work are refused before anything is installed, with the name of the value."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from tests.helm.charts import CHART, example, merged, render

MULTI_HOST = example(CHART.parent / "examples" / "gpu-multi-host.yaml")
GPU = example(CHART.parent / "examples" / "gpu.yaml")
PRODUCTION = example(CHART.parent / "examples" / "production.yaml")
CPU_GROUP = {"name": "cpu", "resources": {"requests": {"cpu": 2}}}
MODEL = {"id": "lacuna-tiny-sdar"}


def model(**settings: Any) -> dict[str, Any]:
    return {"app": {"models": [MODEL | settings]}}


def groups(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"workerGroups": [CPU_GROUP | change for change in changes]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tls": {"enabled": "yes"}}, "tls/enabled"),
        ({"tsl": {"enabled": True}}, "tsl"),
        ({"app": {"modles": []}}, "modles"),
        ({"app": {"max_queue_depth": 0}}, "app/max_queue_depth"),
        (model(engine={"max_num_seq": 4}), "max_num_seq"),
        (model(engine={"dtype": "fp8"}), "app/models/0/engine/dtype"),
        (model(num_gpu=1), "num_gpu"),
        ({"upgradeStrategy": {"type": "RollingUpdate"}}, "upgradeStrategy/type"),
        ({"rayAuth": {"mode": "on"}}, "rayAuth/mode"),
        (groups({"minReplicas": -1}), "workerGroups/0/minReplicas"),
        (groups({"name": "GPU"}), "workerGroups/0/name"),
        (groups({"tolerations": [{"effect": "NoSchedul"}]}), "workerGroups/0/tolerations/0/effect"),
        ({"workerGroups": []}, "workerGroups"),
        ({"env": [{"value": "1"}]}, "env/0"),
        ({"rayVersion": 2.6}, "rayVersion"),
        ({"head": {"min_replicas": 1}}, "min_replicas"),
    ],
)
def test_the_schema_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=message):
        render(values)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tls": {"enabled": True}}, "tls.existingSecret: needed"),
    ({"terminationGracePeriodSeconds": 89}, "terminationGracePeriodSeconds: 89 is too short.* make 90"),
    ({"app": {"graceful_shutdown_timeout_s": 90.5}}, "terminationGracePeriodSeconds: 120 is too short.* make 121"),
    (groups({"minReplicas": 3, "maxReplicas": 2}), r"workerGroups\[0\].minReplicas: 3 exceeds maxReplicas 2"),
    (groups({"maxReplicas": 2}), r"workerGroups\[0\].maxReplicas: .* autoscaler.enabled"),
    (groups({}, {}), r"workerGroups\[1\].name: .cpu. occurs twice"),
    (groups({"resources": {"limits": {"memory": "4Gi"}}}), r"workerGroups\[0\].resources: requests.cpu is needed"),
    (groups({"minReplicas": 0}) | {"autoscaler": {"enabled": True}}, "head.servesTraffic: needed"),
    (model(autoscaling={"min_replicas": 0}), "head.servesTraffic: needed where every one of app.models"),
    (model(num_gpus=1), r"workerGroups: no group .* 0.5 CPUs and 1 GPUs .* app.models\[0\] \(lacuna-tiny-sdar\)"),
    (model(num_cpus=3), r"workerGroups: no group .* 3 CPUs"),
    (merged(GPU, {"workerGroups": GPU["workerGroups"][:1]}), "workerGroups: no group .* 1 GPUs"),
    (
        merged(
            GPU,
            {"app": {"models": [GPU["app"]["models"][0] | {"autoscaling": {"min_replicas": 5, "max_replicas": 5}}]}},
        ),
        "workerGroups: all groups at maxReplicas have 4 GPUs, .* need 5",
    ),
    (
        merged(
            MULTI_HOST, {"app": {"models": [MULTI_HOST["app"]["models"][0] | {"placement_strategy": "STRICT_PACK"}]}}
        ),
        "workerGroups: no group .* 32 CPUs and 16 GPUs .* 16 ranks stay in one pod unless placement_strategy is PACK",
    ),
    (merged(GPU, {"checkpoints": {"existingClaim": ""}}), r"checkpoints.existingClaim: app.models\[0\].path"),
    (merged(GPU, {"checkpoints": {"hostPath": "/models"}}), "checkpoints: give one of"),
    (merged(PRODUCTION, {"app": {"api_keys": "env:KEYS"}}), "apiKeys.existingSecret: app.api_keys is given too"),
    (merged(PRODUCTION, {"app": {"ledger": "env:URL"}}), "ledger.existingSecret: app.ledger is given too"),
    ({"app": {"ledger": "postgresql://me:secret@db/x"}}, "app.ledger: a password would stand in the RayService"),
    (merged(PRODUCTION, {"networkPolicy": {"metrics": []}}), "networkPolicy.metrics: admits nobody"),
    (
        merged(PRODUCTION, {"monitoring": {"podMonitor": {"apiKeySecret": {"name": ""}}}}),
        "monitoring.podMonitor.apiKeySecret.name: needed",
    ),
    (
        merged(PRODUCTION, {"monitoring": {"podMonitor": {"apiKeySecret": {"key": ""}}}}),
        "monitoring.podMonitor.apiKeySecret.key: needed",
    ),
    (merged(PRODUCTION, {"gcsFaultTolerance": {"redis": {"address": ""}}}), "gcsFaultTolerance.redis.address: needed"),
    (
        merged(PRODUCTION, {"gcsFaultTolerance": {"redis": {"password": {"key": ""}}}}),
        "gcsFaultTolerance.redis.password.key: needed",
    ),
    (
        {"gcsFaultTolerance": {"backend": "rocksdb", "rocksdb": {"claimName": "mine"}}},
        "gcsFaultTolerance.rocksdb.claimName: two heads",
    ),
    (
        {"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}},
        "upgradeStrategy.incremental.gatewayClassName: needed",
    ),
    (
        {
            "upgradeStrategy": {
                "type": "NewClusterWithIncrementalUpgrade",
                "incremental": {"gatewayClassName": "istio"},
            }
        },
        "autoscaler.enabled: needed",
    ),
    ({"commonLabels": {"app.kubernetes.io/name": "llm"}}, "commonLabels: app.kubernetes.io/name is KubeRay's"),
    ({"head": {"labels": {"ray.io/serve": "true"}}}, "head.labels: ray.io/serve is KubeRay's"),
    (groups({"labels": {"ray.io/cluster": "x"}}), r"workerGroups\[0\].labels: ray.io/cluster is KubeRay's"),
    ({"serve": {"grpc": {"port": 8000}}}, "serve.grpc.port: 8000 is taken"),
    ({"serve": {"http": {"port": 8265}}}, "serve.http.port: 8265 is taken"),
    ({"serve": {"http": {"port": 8404}}}, "serve.http.port: 8404 is taken"),
    ({"fullnameOverride": "1st"}, "fullnameOverride: .1st. must begin with a letter"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_the_templates_refuse(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=message) as refused:
        render(values)
    assert "secret@" not in str(refused.value)


def test_a_release_whose_name_is_too_long_for_kuberay_is_refused() -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"fullnameOverride: .* has 48 characters, KubeRay allows 47"):
        render({}, name="a" * 41)
    assert render({}, name="a" * 40)


def test_zero_and_false_are_settings_too() -> None:
    assert render({"app": {"graceful_shutdown_timeout_s": 0}, "terminationGracePeriodSeconds": 30})
    group = groups({"minReplicas": 0}) | {"autoscaler": {"enabled": True}, "head": {"servesTraffic": True}}
    assert render(group)
