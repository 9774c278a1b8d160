"""Tiny checkpoints in the published layouts, with seeded random weights, and a byte-level tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

VOCAB_SIZE = 320
MASK, EOS, BOS, USER, ASSISTANT, SYSTEM = range(1, 7)
SPECIALS = ("<unk>", "<|mask|>", "<|endoftext|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|system|>")
CHAT_TEMPLATE = (
    "<|bos|>{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

LLADA_CONFIG: Mapping[str, object] = {
    "architectures": ["LLaDAModelLM"],
    "model_type": "llada",
    "auto_map": {"AutoModelForCausalLM": "modeling_llada.LLaDAModelLM"},
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "mlp_hidden_size": 48,
    "mlp_ratio": 4,
    "block_type": "llama",
    "block_group_size": 1,
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_theta": 500000.0,
    "alibi": False,
    "max_sequence_length": 512,
    "vocab_size": VOCAB_SIZE,
    "embedding_size": None,
    "mask_token_id": MASK,
    "eos_token_id": EOS,
    "weight_tying": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "multi_query_attention": None,
    "scale_logits": False,
}

SDAR_CONFIG: Mapping[str, object] = {
    "architectures": ["SDARForCausalLM"],
    "model_type": "sdar",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_position_embeddings": 256,
    "vocab_size": VOCAB_SIZE,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "block_size": 4,
    "mask_token_id": MASK,
    "eos_token_id": EOS,
}


def write_llada(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    """A LLaDA checkpoint whose ``config.json`` has ``changes``; returns the folder."""
    return _write(folder, {**LLADA_CONFIG, **changes}, llada_tensors, seed, dtype)


def write_sdar(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    """An SDAR checkpoint whose ``config.json`` has ``changes``; returns the folder."""
    return _write(folder, {**SDAR_CONFIG, **changes}, sdar_tensors, seed, dtype)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def llada_tensors(config: Mapping[str, object], draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    d, mlp, layers = (_int(config, name) for name in ("d_model", "mlp_hidden_size", "n_layers"))
    kv = d // _int(config, "n_heads") * _int(config, "n_kv_heads")
    vocab = _int(config, "embedding_size") or _int(config, "vocab_size")
    tensors = {"wte.weight": draw(vocab, d), "ln_f.weight": draw(d)}
    if not config.get("weight_tying"):
        tensors["ff_out.weight"] = draw(vocab, d)
    shapes = {"attn_norm": (d,), "ff_norm": (d,), "q_proj": (d, d), "k_proj": (kv, d), "v_proj": (kv, d)}
    shapes |= {"attn_out": (d, d), "ff_proj": (mlp, d), "up_proj": (mlp, d), "ff_out": (d, mlp)}
    for layer in range(layers):
        tensors |= {f"blocks.{layer}.{name}.weight": draw(*shape) for name, shape in shapes.items()}
    return {f"model.transformer.{name}": tensor for name, tensor in tensors.items()}


def sdar_tensors(config: Mapping[str, object], draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    d, mlp, layers = (_int(config, name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    head, vocab = _int(config, "head_dim"), _int(config, "vocab_size")
    q, kv = head * _int(config, "num_attention_heads"), head * _int(config, "num_key_value_heads")
    tensors = {"model.embed_tokens.weight": draw(vocab, d), "model.norm.weight": draw(d)}
    if not config.get("tie_word_embeddings"):
        tensors["lm_head.weight"] = draw(vocab, d)
    shapes = {"input_layernorm": (d,), "post_attention_layernorm": (d,), "self_attn.q_norm": (head,)}
    shapes |= {"self_attn.k_norm": (head,), "self_attn.q_proj": (q, d), "self_attn.k_proj": (kv, d)}
    shapes |= {"self_attn.v_proj": (kv, d), "self_attn.o_proj": (d, q)}
    shapes |= {"mlp.gate_proj": (mlp, d), "mlp.up_proj": (mlp, d), "mlp.down_proj": (d, mlp)}
    for layer in range(layers):
        for name, shape in shapes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = draw(*shape)
            if config.get("attention_bias") and name.startswith("self_attn") and name.endswith("_proj"):
                tensors[f"model.layers.{layer}.{name}.bias"] = draw(shape[0])
    return tensors


def write_tokenizer(folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, mask_is_special: bool = True) -> Path:
    """A byte-level BPE of ``VOCAB_SIZE`` entries; ``<think>`` is an added token that is not special."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 1,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the mask fills the gap", "a lacuna is a gap in the text"] * 20, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    folder.mkdir(parents=True, exist_ok=True)
    description = json.loads(tokenizer.to_str())
    description["added_tokens"][MASK]["special"] = mask_is_special
    write_json(folder / "tokenizer.json", description)
    roles = {"mask_token": "<|mask|>", "eos_token": "<|endoftext|>", "bos_token": "<|bos|>", "unk_token": "<unk>"}
    template = {} if chat_template is None else {"chat_template": chat_template}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {**kind, **roles, **template})
    return folder


def _write(
    folder: Path,
    config: Mapping[str, object],
    tensors_of: Callable[[Mapping[str, object], Callable[..., Tensor]], dict[str, Tensor]],
    seed: int,
    dtype: torch.dtype,
) -> Path:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        return (noise * 0.2 if len(shape) > 1 else 1 + noise * 0.1).to(dtype)

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    save_file(tensors_of(config, draw), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _int(config: Mapping[str, object], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) else 0
