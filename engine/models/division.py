"""Whether a network can be divided like a layout says."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.layers.division import head_parts
from engine.models.spec import ModelSpec, MoESpec
from engine.parallel import ParallelLayout


def check_division(spec: ModelSpec, layout: ParallelLayout) -> None:
    """ConfigError names the setting that does not suit the network."""
    head_parts(layout.tensor_part(0), spec.num_heads, spec.num_kv_heads)
    _check_width("intermediate size", spec.intermediate_size, layout.tensor, "tensor_parallel_size")
    if spec.moe is not None:
        _check_experts(spec.moe, layout)
    elif layout.expert > 1:
        raise ConfigError(
            f"expert_parallel_size {layout.expert}: {spec.architecture} has no experts to divide; leave it at 1",
            "expert_parallel_size",
        )
    elif layout.dispatch != "all_reduce":
        raise ConfigError(
            f"expert_dispatch {layout.dispatch}: {spec.architecture} has no experts; leave it at all_reduce",
            "expert_dispatch",
        )


def _check_experts(moe: MoESpec, layout: ParallelLayout) -> None:
    _check_width("number of experts", moe.num_experts, layout.expert, "expert_parallel_size")
    parts = layout.expert_width_part(0).count
    _check_width("width of an expert", moe.intermediate_size, parts, "tensor_parallel_size")


def _check_width(what: str, size: int, parts: int, setting: str) -> None:
    """Every rank needs something to do; parts of unequal size are fine."""
    if size < parts:
        raise ConfigError(f"{setting}: the model's {what}, {size}, has no {parts} parts; use fewer ranks", setting)
