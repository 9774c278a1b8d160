"""Values about the Ray cluster's pods: image, head, groups of workers, volumes, probes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deployments.chart.kubernetes import (
    AsInKubernetes,
    EnvVar,
    Labels,
    Quantity,
    Resources,
    Section,
    Toleration,
    VolumeMount,
)

GroupName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$")]


class Image(Section):
    """A container image."""

    repository: str = Field(min_length=1, description="Registry and name of the image.")
    tag: str = Field(min_length=1, description="Tag of the image.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(default="IfNotPresent", description="When to pull.")


class PullSecret(Section):
    """A Secret with a registry's credentials."""

    name: str = Field(min_length=1, description="Name of the Secret.")


class Group(Section):
    """What the head and every group of workers have in common."""

    resources: Resources = Field(default=Resources(), description="Of each Ray container.")
    shm_size: Quantity = Field(
        default="2Gi",
        description="Size of /dev/shm, which Ray's object store and the ranks of a sharded replica share memory "
        "through; it counts as memory of the container.",
    )
    node_selector: Labels = Field(default={}, description="Labels that nodes must have.")
    tolerations: list[Toleration] = Field(default=[], description="Taints of nodes that these pods accept.")
    affinity: AsInKubernetes = Field(default={}, description="As in a pod's spec.")
    topology_spread_constraints: list[AsInKubernetes] = Field(default=[], description="As in a pod's spec.")
    priority_class_name: str = Field(default="", description="Priority class of the pods.")
    runtime_class_name: str = Field(default="", description="Runtime class, e.g. nvidia.")
    labels: Labels = Field(default={}, description="Labels of the pods.")
    annotations: Labels = Field(default={}, description="Annotations of the pods.")
    env: list[EnvVar] = Field(default=[], description="Environment variables, beside those of all pods.")
    extra_volumes: list[AsInKubernetes] = Field(default=[], description="Volumes, as in a pod's spec.")
    extra_volume_mounts: list[VolumeMount] = Field(default=[], description="Where the volumes appear.")
    ray_start_params: Labels = Field(default={}, description="Arguments of `ray start`; values are texts.")


class Head(Group):
    """Ray's head: cluster state, dashboard and Serve's controller. It has no CPUs for engines."""

    serves_traffic: bool = Field(
        default=False,
        description="Whether clients are sent to the head's proxy too; needed where every group may have no pod, or "
        "every model no replica.",
    )


class WorkerGroup(Group):
    """Pods of one kind. The autoscaler adds and removes replicas of a group; a replica is `numOfHosts` pods."""

    name: GroupName = Field(description="Name of the group.")
    min_replicas: int = Field(default=1, ge=0, description="Replicas that are always there.")
    max_replicas: int = Field(default=1, ge=1, description="Most replicas; beyond minReplicas by autoscaler.")
    num_of_hosts: int = Field(
        default=1, ge=1, description="Pods of a replica, made and removed together: for models sharded over nodes."
    )
    idle_timeout_seconds: int | None = Field(
        default=None, ge=0, description="After how long without work a replica goes; empty: the autoscaler's."
    )
    priority: int | None = Field(
        default=None, description="Of groups that fit, the one with the highest grows first (KubeRay 1.7)."
    )
    ray_labels: Labels = Field(default={}, description="Labels of the Ray nodes, for placement by label.")


class Checkpoints(Section):
    """The volume with the models' folders, in every Ray pod. At most one of the sources."""

    mount_path: str = Field(default="/checkpoints", pattern="^/", description="Where `path` of a model finds it.")
    read_only: bool = Field(default=True, description="Whether nothing may be written.")
    existing_claim: str = Field(default="", description="A PersistentVolumeClaim that many nodes may mount.")
    host_path: str = Field(default="", description="A folder that is on every node.")
    volume: AsInKubernetes = Field(default={}, description="Any other source, as in a pod's volume, e.g. {nfs: ...}.")


class ProbeTiming(Section):
    """When a container counts as ready, or as dead."""

    initial_delay_seconds: int = Field(default=10, ge=0, description="Time before the first check.")
    period_seconds: int = Field(default=5, ge=1, description="Time between checks.")
    timeout_seconds: int = Field(default=5, ge=1, description="Time of a check.")
    failure_threshold: int = Field(default=3, ge=1, description="So many failures in a row decide.")


class Probes(Section):
    """Checks of the Ray pods. Workers are ready when Serve's proxy on them is; models may still be loading."""

    readiness: ProbeTiming = Field(default=ProbeTiming(), description="No traffic while it fails.")
    liveness: ProbeTiming = Field(
        default=ProbeTiming(initial_delay_seconds=30, failure_threshold=120),
        description="The container restarts when it fails: Ray's node is dead (at the head: its state service too).",
    )
