"""The embedded checkpoints' tokenizer: byte-level BPE trained on the tasks, with a chat template."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.evaluation.tasks.table import training_samples

END, MASK, BEGIN, USER, ASSISTANT, SYSTEM = SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|mask|>",
    "<|bos|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages -%}"
    "{%- if message['role'] in ['system', 'developer'] -%}{{ '<|system|>' }}"
    "{%- elif message['role'] == 'user' -%}{{ '<|user|>' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ '<|assistant|>' }}"
    "{%- else -%}{{ raise_exception('unknown role: ' + message['role']) }}{%- endif -%}"
    "{{ message['content'] | trim }}"
    "{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)

# A word or a digit takes its leading space along; digits stay single, so a result is as many tokens as it has digits.
PIECES = r"\n| ?[0-9]| ?\p{L}+| ?[^\s\p{L}0-9]+|\s"


def train_tokenizer(vocab_size: int, seed: int, num_samples: int = 40_000) -> Tokenizer:
    """Learn the merges from ``num_samples`` training samples. All 256 bytes are entries, so that any text encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{sample.prompt}\n{sample.answer}" for sample in islice(training_samples(seed), num_samples))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` (read by ``AutoTokenizer`` without any code)."""
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "mask_token": MASK,
        "additional_special_tokens": [USER, ASSISTANT, SYSTEM],
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
