"""Training samples as token ids: a deterministic stream, encoded in chunks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from tokenizers import Tokenizer

from engine.evaluation.tasks.sample import Sample
from engine.evaluation.tasks.table import training_samples
from engine.training.tokenizer import ASSISTANT, BEGIN, END, MASK, SYSTEM, USER

CHUNK = 2048
SYSTEM_PROMPTS = ("You are a helpful assistant.", "Be brief.", "You are Lacuna.", "Answer the question.")
SYSTEM_SHARE = 0.05
SECOND_TURN_SHARE = 0.04
LOOSE_PUNCTUATION_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids of the special tokens."""

    end: int
    mask: int
    begin: int
    user: int
    assistant: int
    system: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialIds:
        vocabulary = tokenizer.get_vocab()
        return cls(*(vocabulary[token] for token in (END, MASK, BEGIN, USER, ASSISTANT, SYSTEM)))


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """``prompt`` ends with the assistant's mark; ``answer`` ends with one end-of-text id.

    Where a model wrote the answer itself, ``canvas`` is all that stood on its canvas when it ended, the answer first,
    and ``revealed_at`` the denoising step (from 1 on) that filled each position, 0 where nothing has.
    """

    prompt: list[int]
    answer: list[int]
    canvas: tuple[int, ...] = ()
    revealed_at: tuple[int, ...] = ()


def encode_prompt(tokenizer: Tokenizer, ids: SpecialIds, prompt: str) -> list[int]:
    """One user turn, exactly as the chat template renders it."""
    return [ids.begin, ids.user, *tokenizer.encode(prompt).ids, ids.assistant]


def encoded_samples(tokenizer: Tokenizer, seed: int) -> Iterator[EncodedSample]:
    """Samples in chat form. A few carry a system message, follow another turn, or lack their last punctuation mark."""
    ids = SpecialIds.of(tokenizer)
    rng = random.Random(f"form-{seed}")
    samples = training_samples(seed)
    while True:
        chunk = list(islice(samples, CHUNK))
        prompts = tokenizer.encode_batch([_loosen(sample, rng) for sample in chunk])
        answers = tokenizer.encode_batch([sample.answer for sample in chunk])
        systems = [[ids.system, *tokenizer.encode(text).ids] for text in SYSTEM_PROMPTS]
        previous: list[int] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            turn = [ids.user, *prompt.ids, ids.assistant]
            system = rng.choice(systems) if rng.random() < SYSTEM_SHARE else []
            earlier = previous if rng.random() < SECOND_TURN_SHARE else []
            yield EncodedSample([ids.begin, *system, *earlier, *turn], [*answer.ids, ids.end])
            previous = [*turn, *answer.ids, ids.end]


def _loosen(sample: Sample, rng: random.Random) -> str:
    return sample.prompt.rstrip(".?!") if rng.random() < LOOSE_PUNCTUATION_SHARE else sample.prompt
