"""The fields of ``config.json`` that all families but LLaDA spell alike, as transformers writes them."""

from __future__ import annotations

from engine.errors import CheckpointError, UnsupportedModelError
from engine.models.family import NetworkShape
from engine.models.json_fields import JsonFields


def read_transformer_config(config: JsonFields, intermediate_field: str = "intermediate_size") -> NetworkShape:
    """A dense network without partial rotary embeddings; the families add what they have.

    ``num_key_value_heads`` null means ``num_attention_heads``, ``head_dim`` null their share of ``hidden_size``.
    """
    refuse_unsupported(config)
    hidden_size, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.optional_integer("head_dim", minimum=2)
    if head_dim is None and hidden_size % num_heads:
        raise CheckpointError(f"{config.file} has no head_dim; add it as published", "head_dim")
    return NetworkShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=config.integer(intermediate_field),
        num_layers=config.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=config.optional_integer("num_key_value_heads", minimum=1) or num_heads,
        head_dim=head_dim or hidden_size // num_heads,
        max_position_embeddings=config.integer("max_position_embeddings"),
        max_positions_field="max_position_embeddings",
        rope_theta=config.positive("rope_theta", rope_parameters(config).positive("rope_theta", 10000.0)),
        rms_norm_eps=config.positive("rms_norm_eps", 1e-6),
        tie_word_embeddings=config.optional_flag("tie_word_embeddings"),
    )


def rope_parameters(config: JsonFields) -> JsonFields:
    """What transformers 5 writes instead of ``rope_theta``, ``rope_scaling`` and ``partial_rotary_factor``."""
    return JsonFields(config.where("rope_parameters"), config.mapping("rope_parameters"))


def refuse_unsupported(config: JsonFields) -> None:
    """Options of these configs that no network here has."""
    config.require("hidden_act", "silu")
    config.require("rope_scaling")
    rope_parameters(config).require("rope_type", "default")
    config.require("use_sliding_window", False)
    layer_types = config.get("layer_types")
    if isinstance(layer_types, list) and set(layer_types) - {"full_attention"}:
        message = f"{config.file}: layer_types with other than full_attention are not supported, found {layer_types}"
        raise UnsupportedModelError(message, "layer_types")
