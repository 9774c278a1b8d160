"""The models that can be served: the ``architectures`` name of a ``config.json`` and its family.

A new model is its network, its config reader with a ModelFamily, and one line here.
"""

from __future__ import annotations

import importlib
from typing import cast

from engine.errors import CheckpointError, UnsupportedModelError
from engine.models.family import ModelFamily
from engine.models.json_fields import JsonFields

FAMILIES = {
    "LLaDAModelLM": "engine.models.llada_config:LLADA",
    "LLaDAMoEModelLM": "engine.models.llada_moe_config:LLADA_MOE",
    "LLaDA2MoeModelLM": "engine.models.llada2_config:LLADA2",
    "DreamModel": "engine.models.dream_config:DREAM",
    "SDARForCausalLM": "engine.models.sdar_config:SDAR",
    "SDARMoeForCausalLM": "engine.models.sdar_moe_config:SDAR_MOE",
}

ADAPTABLE = ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM")
"""Autoregressive architectures that a family above begins as."""


def model_family(architecture: str) -> ModelFamily:
    """The family of an architecture; UnsupportedModelError lists what there is."""
    target = FAMILIES.get(architecture)
    if target is None:
        known = ", ".join(FAMILIES)
        message = f"config.json: architectures = {architecture!r} is not supported; supported are: {known}"
        if architecture in ADAPTABLE:
            message += ". This one is autoregressive: `lacuna adapt` turns it into a block-diffusion model"
        raise UnsupportedModelError(message, "architectures")
    module, _, attribute = target.partition(":")
    return cast("ModelFamily", getattr(importlib.import_module(module), attribute))


def read_architecture(config: JsonFields) -> str:
    """The one entry of ``architectures``. ``auto_map`` is never followed: checkpoints bring no code."""
    value = config.get("architectures")
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], str):
        raise CheckpointError(
            f"{config.file}: architectures must be a list with one name ({', '.join(FAMILIES)}), found {value!r}",
            "architectures",
        )
    return value[0]
