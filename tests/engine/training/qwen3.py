"""Random Qwen3 and Qwen3-MoE checkpoints as transformers writes them, with a tokenizer that has no mask token."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PretrainedConfig, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

END = "<|endoftext|>"
TURN_END = "<|im_end|>"
SPECIAL = (END, "<|im_start|>", TURN_END)
USED_IDS = 256 + len(SPECIAL)
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SHAPE = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 256,
}


def save_qwen3(folder: Path, **changes: object) -> Path:
    """A dense one; ``changes`` are fields of its config."""
    return _save(folder, Qwen3Config(**(SHAPE | changes)), Qwen3ForCausalLM)


def save_qwen3_moe(folder: Path, **changes: object) -> Path:
    """Four experts in each layer, two for each token."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True}
    return _save(folder, Qwen3MoeConfig(**(SHAPE | experts | changes)), Qwen3MoeForCausalLM)


def _save(folder: Path, config: PretrainedConfig, kind: type[Qwen3ForCausalLM | Qwen3MoeForCausalLM]) -> Path:
    model = kind(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # biases and norms too: a forgotten one shows
        mean, std = (1.0, 0.1) if parameter.ndim == 1 else (0.0, 0.2)
        parameter.data.normal_(mean, std, generator=generator)
    model.save_pretrained(folder, max_shard_size="40KB")
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Bytes, the three special tokens of ChatML, and a template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: index for index, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": TURN_END,
        "pad_token": END,
        "added_tokens_decoder": {str(256 + n): {"content": text, "special": True} for n, text in enumerate(SPECIAL)},
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 256]}))
