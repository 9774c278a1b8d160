"""The Ray cluster: head without work, groups of workers, volumes, probes, flags."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.helm.charts import CHART, Objects, cluster_of, example, find, merged, pod_templates, render, split

MULTI_HOST = example(CHART.parent / "examples" / "gpu-multi-host.yaml")
PRODUCTION = example(CHART.parent / "examples" / "production.yaml")


def containers(objects: Objects) -> list[dict[str, Any]]:
    return [template["spec"]["containers"][0] for template in pod_templates(objects)]


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value") or one["valueFrom"]["secretKeyRef"] for one in container["env"]}


def volumes(template: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: {key: one[key] for key in one if key != "name"} for one in template["spec"]["volumes"]}


def test_the_head_has_no_cpus_and_no_clients() -> None:
    objects = render({})
    assert cluster_of(objects)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert find(objects, "RayService")["spec"]["excludeHeadPodFromServeSvc"] is True
    serving = find(render({"head": {"servesTraffic": True}}), "RayService")["spec"]
    assert serving["excludeHeadPodFromServeSvc"] is False


def test_pods_leave_kuberay_the_labels_by_which_it_finds_them() -> None:
    for template in pod_templates(render({"commonLabels": {"team": "chat"}, "head": {"labels": {"tier": "head"}}})):
        labels = template["metadata"]["labels"]
        assert not {"app.kubernetes.io/name", "app.kubernetes.io/created-by"} & set(labels)
        assert labels["team"] == "chat"
        assert labels.get("tier") == {"ray-head": "head"}.get(labels["app.kubernetes.io/component"])


def test_the_ports_have_the_names_that_kuberay_looks_for() -> None:
    head, worker = containers(render({"serve": {"grpc": {"port": 9900}}}))
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    workers = {"metrics": 8080, "serve": 8000, "serve-grpc": 9900}
    assert ports == workers | {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
    assert {port["name"]: port["containerPort"] for port in worker["ports"]} == workers


def test_serves_flags_and_secrets_are_on_every_pod() -> None:
    for container in containers(render(PRODUCTION)):
        assert environment(container) == {
            "RAY_worker_niceness": "0",
            "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "LACUNA_API_KEYS": {"name": "lacuna-api-keys", "key": "api-keys"},
            "LACUNA_LEDGER_URL": {"name": "lacuna-ledger", "key": "url"},
            "NVIDIA_VISIBLE_DEVICES": "void",
        }


def test_own_variables_come_last_and_for_their_group_only() -> None:
    own = [{"name": "RAY_worker_niceness", "value": "5"}]
    head, cpu, gpu = containers(render(merged(MULTI_HOST, {"env": own})))
    assert environment(head)["RAY_worker_niceness"] == environment(gpu)["RAY_worker_niceness"] == "5"
    assert environment(gpu)["NCCL_SOCKET_IFNAME"] == "eth0"
    assert "NCCL_SOCKET_IFNAME" not in environment(cpu)
    assert "NVIDIA_VISIBLE_DEVICES" in environment(cpu)
    assert "NVIDIA_VISIBLE_DEVICES" not in environment(gpu)


def test_a_replica_may_be_several_hosts() -> None:
    cpu, gpu = cluster_of(render(MULTI_HOST))["workerGroupSpecs"]
    assert (cpu["numOfHosts"], gpu["numOfHosts"]) == (1, 2)
    assert gpu["labels"] == {"lacuna/hosts": "pair"}
    spec = gpu["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["priorityClassName"] == "inference"


def test_shared_memory_and_checkpoints_are_mounted_everywhere() -> None:
    templates = pod_templates(render(MULTI_HOST))
    sizes = [volumes(template)["shm"]["emptyDir"] for template in templates]
    assert sizes == [{"medium": "Memory", "sizeLimit": size} for size in ("1Gi", "2Gi", "32Gi")]
    for template in templates:
        assert volumes(template)["checkpoints"] == {
            "nfs": {"server": "nfs.storage.svc", "path": "/models", "readOnly": True}
        }
        mounts = {one["name"]: one for one in template["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["shm"]["mountPath"] == "/dev/shm"
        assert mounts["checkpoints"] == {"name": "checkpoints", "mountPath": "/checkpoints", "readOnly": True}


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        ({"existingClaim": "models"}, {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}),
        ({"hostPath": "/models"}, {"hostPath": {"path": "/models", "type": "Directory"}}),
    ],
)
def test_sources_of_checkpoints(source: dict[str, Any], volume: dict[str, Any]) -> None:
    for template in pod_templates(render({"checkpoints": source})):
        assert volumes(template)["checkpoints"] == volume


def test_extra_volumes_of_all_pods_and_of_one_group() -> None:
    everywhere = {
        "extraVolumes": [{"name": "cache", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        "head": {"extraVolumes": [{"name": "logs", "emptyDir": {}}]},
    }
    head, worker = pod_templates(render(everywhere))
    assert list(volumes(head)) == ["shm", "cache", "logs"]
    assert list(volumes(worker)) == ["shm", "cache"]


def test_a_mounted_secret_holds_the_api_keys() -> None:
    for template in pod_templates(render({"apiKeys": {"existingSecret": "keys", "mount": True}})):
        items = [{"key": "api-keys", "path": "api-keys"}]
        assert volumes(template)["api-keys"] == {"secret": {"secretName": "keys", "items": items}}


def test_workers_are_ready_with_serves_proxy_and_alive_with_rays_node() -> None:
    head, worker = containers(render({"probes": {"liveness": {"failureThreshold": 7}}}))
    ray = {"path": "/api/healthz", "port": 52365}
    assert head["readinessProbe"]["httpGet"] == head["livenessProbe"]["httpGet"] == ray
    assert worker["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": "serve"}
    assert worker["livenessProbe"]["httpGet"] == ray
    assert worker["livenessProbe"]["failureThreshold"] == 7


def test_pods_run_as_nobody_special() -> None:
    for template in pod_templates(render({})):
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["automountServiceAccountToken"] is False
        security = template["spec"]["containers"][0]["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_autoscaler_is_version_2_and_has_the_heads_token() -> None:
    objects = render(example(CHART.parent / "examples" / "cpu-autoscaled.yaml"))
    cluster = cluster_of(objects)
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] == 120
    (group,) = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 4)
    assert "replicas" not in group  # the autoscaler's, which an upgrade of the release must leave alone
    head, worker = pod_templates(objects)
    assert head["spec"]["automountServiceAccountToken"] is True
    assert worker["spec"]["automountServiceAccountToken"] is False
    assert "restartPolicy" not in head["spec"]


def test_another_version_of_the_chart_changes_no_ray_pod(tmp_path: Path) -> None:
    """KubeRay answers any change of the cluster with a new cluster."""
    copy = shutil.copytree(CHART, tmp_path / "lacuna")
    text = (copy / "Chart.yaml").read_text()
    (copy / "Chart.yaml").write_text(
        text.replace("\nversion: ", "\nversion: 9").replace('appVersion: "', 'appVersion: "9')
    )
    newer = helm_python.Chart.load(copy).render({}, name="demo", namespace="llm")
    (service,) = split(newer["lacuna/templates/rayservice.yaml"])
    assert service["metadata"]["labels"]["helm.sh/chart"].startswith("lacuna-9")
    assert service["spec"] == find(render({}), "RayService")["spec"]


def test_fault_tolerance_of_the_head() -> None:
    redis = cluster_of(render(PRODUCTION))["gcsFaultToleranceOptions"]
    assert redis == {
        "redisAddress": "redis.data.svc:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }
    rocksdb = cluster_of(render({"gcsFaultTolerance": {"backend": "rocksdb", "rocksdb": {"size": "5Gi"}}}))
    storage = {"size": "5Gi", "deletionPolicy": "DeleteWithCluster"}
    assert rocksdb["gcsFaultToleranceOptions"] == {"backend": "rocksdb", "storage": storage}
    assert "gcsFaultToleranceOptions" not in cluster_of(render({}))


def test_rays_token() -> None:
    assert cluster_of(render({}))["authOptions"] == {"mode": "token"}
    given = cluster_of(render({"rayAuth": {"existingSecret": "ray-token"}}))["authOptions"]
    assert given == {"mode": "token", "secretName": "ray-token"}


def test_the_incremental_upgrade_has_its_steps() -> None:
    upgrade = {"type": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}}
    service = find(render({"upgradeStrategy": upgrade, "autoscaler": {"enabled": True}}), "RayService")
    assert service["spec"]["upgradeStrategy"] == {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": "istio",
            "stepSizePercent": 10,
            "intervalSeconds": 30,
            "maxSurgePercent": 100,
        },
    }
