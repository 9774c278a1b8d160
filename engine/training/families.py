"""What differs between the families in training: the network and the published config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.cache.policy import AttentionPattern
from engine.models.llada import LLaDAModel
from engine.models.llada_moe import LLaDAMoEModel
from engine.models.sdar import SDARModel
from engine.models.spec import DiffusionLM, ModelSpec

ROUTER_BALANCE = 0.01
"""Weight of the balancing loss of mixtures (LLaDA-MoE, arXiv 2509.24389)."""


@dataclass(frozen=True, slots=True)
class Family:
    """``residual_outputs`` are endings of the published names of tensors that write into the residual stream;
    ``config`` renders a spec with its published field names."""

    build: Callable[[ModelSpec], DiffusionLM]
    architecture: str
    attention: AttentionPattern
    residual_outputs: tuple[str, ...]
    config: Callable[[ModelSpec], dict[str, object]]


def llada_config(spec: ModelSpec) -> dict[str, object]:
    """``config.json`` of ``LLaDAModelLM``."""
    (end,) = spec.stop_token_ids
    return {
        "architectures": [spec.architecture],
        "model_type": "llada",
        "d_model": spec.hidden_size,
        "n_layers": spec.num_layers,
        "n_heads": spec.num_heads,
        "n_kv_heads": spec.num_kv_heads,
        "mlp_hidden_size": spec.intermediate_size,
        "block_type": "llama",
        "block_group_size": 1,
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope": True,
        "rope_theta": spec.rope_theta,
        "rope_full_precision": True,
        "alibi": False,
        "max_sequence_length": spec.max_position_embeddings,
        "vocab_size": spec.vocab_size,
        "embedding_size": spec.vocab_size,
        "block_size": spec.block_length,
        "mask_token_id": spec.mask_token_id,
        "eos_token_id": end,
        "pad_token_id": end,
        "weight_tying": spec.tie_word_embeddings,
        "include_bias": False,
        "include_qkv_bias": False,
        "bias_for_layer_norm": False,
        "attention_layer_norm": False,
        "input_emb_norm": False,
        "scale_logits": False,
        "use_cache": False,
    }


def llada_moe_config(spec: ModelSpec) -> dict[str, object]:
    """``config.json`` of ``LLaDAMoEModelLM``: LLaDA's ``model_type``, and otherwise the names of transformers."""
    moe = spec.moe
    assert moe is not None
    common = _transformers_config(spec)
    return common | {
        "model_type": "llada",
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.routing.experts_per_token,
        "expert_intermediate_size": moe.intermediate_size,
        "dense_intermediate_size": spec.intermediate_size,
        "shared_expert_intermediate_size": None,
        "moe_layer_freq": [int(layer not in moe.dense_layers) for layer in range(spec.num_layers)],
        "moe_router_score_function": "softmax",
        "moe_router_enable_expert_bias": False,
        "norm_topk_prob": None,
        "routed_scaling_factor": 1,
        "router_aux_loss_coef": ROUTER_BALANCE,
        "qk_layernorm": True,
        "attention_dropout": 0.0,
        "clip_qkv": None,
        "partial_rotary_factor": 1,
        "pad_token_id": common["eos_token_id"],
    }


def sdar_config(spec: ModelSpec) -> dict[str, object]:
    """``config.json`` of ``SDARForCausalLM``."""
    common = _transformers_config(spec)
    return common | {
        "model_type": "sdar",
        "intermediate_size": spec.intermediate_size,
        "head_dim": spec.head_dim,
        "bos_token_id": common["eos_token_id"],
    }


def qwen3_config(spec: ModelSpec) -> dict[str, object]:
    """``config.json`` of ``Qwen3ForCausalLM``, the autoregressive network that SDAR begins as."""
    fields = sdar_config(spec) | {"model_type": "qwen3", "use_cache": True}
    return {name: value for name, value in fields.items() if name not in ("block_size", "mask_token_id")}


def _transformers_config(spec: ModelSpec) -> dict[str, object]:
    """What families with the names of transformers have in common."""
    (end,) = spec.stop_token_ids
    return {
        "architectures": [spec.architecture],
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": spec.max_position_embeddings,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope_theta,
        "rope_scaling": None,
        "attention_bias": spec.attention_bias,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "vocab_size": spec.vocab_size,
        "block_size": spec.block_length,
        "mask_token_id": spec.mask_token_id,
        "eos_token_id": end,
        "torch_dtype": "bfloat16",
        "use_cache": False,
    }


LLADA = Family(
    build=LLaDAModel,
    architecture="LLaDAModelLM",
    attention="bidirectional",
    residual_outputs=("attn_out.weight", "ff_out.weight"),
    config=llada_config,
)
LLADA_MOE = Family(
    build=LLaDAMoEModel,
    architecture="LLaDAMoEModelLM",
    attention="bidirectional",
    residual_outputs=("o_proj.weight", "down_proj.weight"),
    config=llada_moe_config,
)
SDAR = Family(
    build=SDARModel,
    architecture="SDARForCausalLM",
    attention="block_causal",
    residual_outputs=("o_proj.weight", "down_proj.weight"),
    config=sdar_config,
)
QWEN3 = replace(SDAR, architecture="Qwen3ForCausalLM", config=qwen3_config)

FAMILIES: dict[str, Family] = {"qwen3": QWEN3, "llada": LLADA, "llada-moe": LLADA_MOE, "sdar": SDAR}
