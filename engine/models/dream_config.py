"""Dream's published ``config.json``: Qwen2's fields and ``mask_token_id``. DiffuCoder and Dream-Coder have the same."""

from __future__ import annotations

from dataclasses import replace

from engine.models.family import ModelFamily, NetworkShape
from engine.models.json_fields import JsonFields
from engine.models.transformer_config import read_transformer_config


def read_dream_config(config: JsonFields) -> NetworkShape:
    """Queries, keys and values always have a bias: no field says so."""
    return replace(read_transformer_config(config), attention_bias=True)


DREAM = ModelFamily(
    name="Dream",
    model="engine.models.dream:DreamModel",
    read_config=read_dream_config,
    attention="bidirectional",
    block_length=32,
    head_tensor="lm_head.weight",
    mask_token_id=151666,
    logit_shift=1,
    end_of_turn=("<|im_end|>",),
)
