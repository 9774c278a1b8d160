"""SDAR's published ``config.json``: Qwen3's fields, sometimes with ``block_size`` and ``mask_token_id``."""

from __future__ import annotations

from dataclasses import replace

from engine.models.family import ModelFamily, NetworkShape
from engine.models.json_fields import JsonFields
from engine.models.transformer_config import read_transformer_config


def read_sdar_config(config: JsonFields) -> NetworkShape:
    """A dense SDAR; ``attention_bias`` covers all four projections."""
    shape = read_transformer_config(config)
    return replace(shape, attention_bias=config.optional_flag("attention_bias") or False)


SDAR = ModelFamily(
    name="SDAR",
    model="engine.models.sdar:SDARModel",
    read_config=read_sdar_config,
    attention="block_causal",
    block_length=4,
    head_tensor="lm_head.weight",
    mask_token_id=151669,
)
