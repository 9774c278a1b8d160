"""LLaDA's published ``config.json`` (names inherited from OLMo)."""

from __future__ import annotations

from engine.errors import CheckpointError
from engine.models.family import ModelFamily, NetworkShape
from engine.models.json_fields import JsonFields

UNSUPPORTED_FLAGS = (
    "alibi",
    "include_bias",
    "include_qkv_bias",
    "bias_for_layer_norm",
    "attention_layer_norm",
    "input_emb_norm",
    "scale_logits",
)


def read_llada_config(config: JsonFields) -> NetworkShape:
    """``embedding_size`` null means ``vocab_size``, ``n_kv_heads`` null means ``n_heads`` (1 with
    ``multi_query_attention``), ``mlp_hidden_size`` null means ``mlp_ratio * d_model``."""
    _refuse_unsupported(config)
    hidden_size, num_heads = config.integer("d_model"), config.integer("n_heads")
    if hidden_size % num_heads:
        message = f"{config.file}: d_model {hidden_size} is not a multiple of n_heads {num_heads}"
        raise CheckpointError(message, "d_model")
    vocab_size = config.integer("vocab_size")
    embedding_size = config.optional_integer("embedding_size", minimum=1) or vocab_size
    if embedding_size < vocab_size:
        message = f"{config.file}: embedding_size {embedding_size} is smaller than vocab_size {vocab_size}"
        raise CheckpointError(message, "embedding_size")
    multi_query = config.optional_flag("multi_query_attention") or False
    mlp_ratio = config.optional_integer("mlp_ratio", minimum=1) or 4
    return NetworkShape(
        vocab_size=embedding_size,
        hidden_size=hidden_size,
        intermediate_size=config.optional_integer("mlp_hidden_size", minimum=1) or mlp_ratio * hidden_size,
        num_layers=config.integer("n_layers"),
        num_heads=num_heads,
        num_kv_heads=config.optional_integer("n_kv_heads", minimum=1) or (1 if multi_query else num_heads),
        head_dim=hidden_size // num_heads,
        max_position_embeddings=config.integer("max_sequence_length"),
        max_positions_field="max_sequence_length",
        rope_theta=config.positive("rope_theta", 10000.0),
        rms_norm_eps=config.positive("rms_norm_eps", 1e-5),
        tie_word_embeddings=config.optional_flag("weight_tying"),
    )


def _refuse_unsupported(config: JsonFields) -> None:
    config.require("block_type", "llama")
    config.require("block_group_size", 1)
    config.require("activation_type", "silu")
    config.require("layer_norm_type", "rms")
    config.require("layer_norm_with_affine", True)
    config.require("rope", True)
    config.require("rope_scaling")
    config.require("clip_qkv")
    for name in UNSUPPORTED_FLAGS:
        config.require(name, False)


LLADA = ModelFamily(
    name="LLaDA",
    model="engine.models.llada:LLaDAModel",
    read_config=read_llada_config,
    attention="bidirectional",
    block_length=32,
    head_tensor="model.transformer.ff_out.weight",
    end_of_turn=("<|eot_id|>",),
)
