"""SDAR's published ``config.json``: Qwen3's fields, sometimes with ``block_size`` and ``mask_token_id``."""

from __future__ import annotations

from engine.errors import CheckpointError, UnsupportedModelError
from engine.models.family import ModelFamily, NetworkShape
from engine.models.json_fields import JsonFields


def read_sdar_config(config: JsonFields) -> NetworkShape:
    """``num_key_value_heads`` null means ``num_attention_heads``, ``head_dim`` null their share of ``hidden_size``."""
    _refuse_unsupported(config)
    hidden_size, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.optional_integer("head_dim", minimum=2)
    if head_dim is None and hidden_size % num_heads:
        raise CheckpointError(f"{config.file} has no head_dim; add it as published", "head_dim")
    return NetworkShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        num_layers=config.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=config.optional_integer("num_key_value_heads", minimum=1) or num_heads,
        head_dim=head_dim or hidden_size // num_heads,
        max_position_embeddings=config.integer("max_position_embeddings"),
        max_positions_field="max_position_embeddings",
        rope_theta=_rope_theta(config),
        rms_norm_eps=config.positive("rms_norm_eps", 1e-6),
        tie_word_embeddings=config.optional_flag("tie_word_embeddings"),
        attention_bias=config.optional_flag("attention_bias") or False,
    )


def _rope_theta(config: JsonFields) -> float:
    """From ``rope_theta``, or from the ``rope_parameters`` that transformers 5 writes instead."""
    parameters = JsonFields(config.where("rope_parameters"), config.mapping("rope_parameters"))
    parameters.require("rope_type", "default")
    return config.positive("rope_theta", parameters.positive("rope_theta", 10000.0))


def _refuse_unsupported(config: JsonFields) -> None:
    config.require("hidden_act", "silu")
    config.require("rope_scaling")
    config.require("use_sliding_window", False)
    layer_types = config.get("layer_types")
    if isinstance(layer_types, list) and set(layer_types) - {"full_attention"}:
        message = f"{config.file}: layer_types with other than full_attention are not supported, found {layer_types}"
        raise UnsupportedModelError(message, "layer_types")


SDAR = ModelFamily(
    name="SDAR",
    model="engine.models.sdar:SDARModel",
    read_config=read_sdar_config,
    attention="block_causal",
    block_length=4,
    head_tensor="lm_head.weight",
    mask_token_id=151669,
)
