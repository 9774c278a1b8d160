"""Kubernetes' own types, as far as the chart's values hold them. Those "as in ..." are checked by the API server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Labels = dict[str, str]
Quantity = Annotated[str | int | float, Field(description="As Kubernetes writes amounts, e.g. 500m, 4Gi, 1.")]
AsInKubernetes = dict[str, Any]


class Section(BaseModel):
    """Part of values.yaml: camelCase keys, and no others than these."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True
    )


class Resources(Section):
    """What a container asks for and may use."""

    requests: dict[str, Quantity] = Field(default={}, description="Asked for, e.g. {cpu: 2, memory: 4Gi}.")
    limits: dict[str, Quantity] = Field(default={}, description="Upper bounds, e.g. {memory: 4Gi, nvidia.com/gpu: 1}.")


class EnvVar(Section):
    """An environment variable of a container."""

    name: str = Field(min_length=1, description="Name of the variable.")
    value: str | None = Field(default=None, description="Its value; numbers need quotes.")
    value_from: AsInKubernetes | None = Field(default=None, description="As in a container's env, e.g. secretKeyRef.")


class Toleration(Section):
    """A taint that pods accept."""

    key: str | None = Field(default=None, description="The taint's key; empty: every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="Equal where nothing is said.")
    value: str | None = Field(default=None, description="The taint's value, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Empty: every effect."
    )
    toleration_seconds: int | None = Field(default=None, description="How long NoExecute is borne.")


class VolumeMount(Section):
    """Where a volume appears in a container."""

    name: str = Field(min_length=1, description="Name of the volume.")
    mount_path: str = Field(min_length=1, description="Folder in the container.")
    sub_path: str | None = Field(default=None, description="Folder or file in the volume.")
    read_only: bool = Field(default=False, description="Whether nothing may be written.")


class SecretKey(Section):
    """One entry of a Secret in the release's namespace."""

    name: str = Field(default="", description="Name of the Secret.")
    key: str = Field(default="", description="Entry of the Secret.")


class Peer(Section):
    """Who may connect, as in a NetworkPolicy's `from`."""

    pod_selector: AsInKubernetes | None = Field(default=None, description="Labels of pods.")
    namespace_selector: AsInKubernetes | None = Field(default=None, description="Labels of namespaces; {}: every one.")
    ip_block: AsInKubernetes | None = Field(default=None, description="Addresses: {cidr: 10.0.0.0/8}.")
