"""Exact-match checks during training, with a plain reference decoder.

The decoder recomputes every token at every step and stores no K/V, for both families: slow and simple enough to trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.evaluation.scoring import matches
from engine.evaluation.tasks.sample import Sample
from engine.evaluation.tasks.table import TASKS, held_out_samples
from engine.models.spec import DiffusionLM
from engine.training.data import SpecialIds, encode_prompt
from engine.training.network import device_of, hidden_states
from engine.training.noise import PADDING_BLOCK, attention_mask

ROWS_PER_FORWARD = 64


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers of a kind, with the forwards they took and the tokens they have (up to and including the end)."""

    right: int
    total: int
    forwards: int
    tokens: int

    @property
    def accuracy(self) -> float:
        return self.right / self.total

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / self.forwards


class Decoder(Protocol):
    """Completes prompts."""

    def decode(self, prompts: Sequence[list[int]], max_tokens: int) -> tuple[list[list[int]], list[int]]:
        """Return the completions, each ended before its end-of-text id, and the forwards each took."""
        ...


class ReferenceDecoder:
    """Greedy decoding of prompts, block by block.

    Each step fills the most confident masked position of the current block and, with a ``threshold``, all that reach
    it. A sequence is finished when everything before its first end-of-text id is filled.
    """

    def __init__(self, model: DiffusionLM, ids: SpecialIds, block_length: int, threshold: float | None) -> None:
        self._model = model
        self._ids = ids
        self._block_length = block_length
        self._threshold = threshold
        self._block_causal = model.spec.attention == "block_causal"

    @torch.no_grad()
    def decode(self, prompts: Sequence[list[int]], max_tokens: int) -> tuple[list[list[int]], list[int]]:
        """Return the completions, each ended before its end-of-text id, and the forwards each took."""
        lengths_R = torch.tensor([len(prompt) for prompt in prompts])
        ends_R = self._canvas_ends(lengths_R, max_tokens)
        canvas_RN = torch.full((len(prompts), int(ends_R.max())), self._ids.end)
        for row, prompt in enumerate(prompts):
            canvas_RN[row, : len(prompt)] = torch.tensor(prompt)
            canvas_RN[row, len(prompt) : ends_R[row]] = self._ids.mask
        forwards_R = torch.zeros(len(prompts), dtype=torch.long)
        while (active_R := self._unfinished(canvas_RN, lengths_R)).any():
            rows = active_R.nonzero()[:, 0]
            canvas_RN[rows] = self._step(canvas_RN[rows], lengths_R[rows], ends_R[rows])
            forwards_R[rows] += 1
        return [
            self._completion(row, int(length)) for row, length in zip(canvas_RN, lengths_R, strict=True)
        ], forwards_R.tolist()

    def _canvas_ends(self, lengths_R: Tensor, max_tokens: int) -> Tensor:
        ends_R = lengths_R + max_tokens
        return ends_R + -ends_R % self._block_length if self._block_causal else ends_R

    def _unfinished(self, canvas_RN: Tensor, lengths_R: Tensor) -> Tensor:
        generated = torch.arange(canvas_RN.shape[1]) >= lengths_R[:, None]
        ended = ((canvas_RN == self._ids.end) & generated).cumsum(1) > 0
        return ((canvas_RN == self._ids.mask) & ~ended).any(1)

    def _step(self, canvas_RN: Tensor, lengths_R: Tensor, ends_R: Tensor) -> Tensor:
        batch, length = canvas_RN.shape
        positions_RN = torch.arange(length).expand(batch, length)
        origin_R1 = torch.zeros_like(lengths_R)[:, None] if self._block_causal else lengths_R[:, None]
        blocks_RN = (positions_RN - origin_R1) // self._block_length
        masked_RN = canvas_RN == self._ids.mask
        first_R = masked_RN.int().argmax(1)
        open_RN = masked_RN & (blocks_RN == blocks_RN.gather(1, first_R[:, None]))
        seen_RN = blocks_RN if self._block_causal else torch.zeros_like(blocks_RN)
        seen_RN = seen_RN.where(positions_RN < ends_R[:, None], PADDING_BLOCK)
        mask = attention_mask(seen_RN, torch.zeros_like(masked_RN))
        places_M = open_RN.flatten().nonzero()[:, 0]
        logits_MV = _logits(self._model, canvas_RN, positions_RN, mask, places_M)
        logits_MV[:, self._ids.mask] = -torch.inf
        best_M = logits_MV.softmax(-1).max(-1)
        confidence_RN = torch.full((batch * length,), -1.0).index_put((places_M,), best_M.values).view(batch, length)
        tokens_RN = canvas_RN.flatten().index_put((places_M,), best_M.indices).view(batch, length)
        fill_RN = torch.arange(length) == confidence_RN.argmax(1, keepdim=True)
        if self._threshold is not None:
            fill_RN |= confidence_RN >= self._threshold
        return tokens_RN.where(fill_RN, canvas_RN)

    def _completion(self, row_N: Tensor, prompt_len: int) -> list[int]:
        tokens: list[int] = row_N[prompt_len:].tolist()
        return tokens[: tokens.index(self._ids.end)] if self._ids.end in tokens else tokens


class NextTokenDecoder:
    """Greedy decoding of an autoregressive network: one forward per token."""

    def __init__(self, model: DiffusionLM, ids: SpecialIds) -> None:
        self._model = model
        self._ids = ids

    @torch.no_grad()
    def decode(self, prompts: Sequence[list[int]], max_tokens: int) -> tuple[list[list[int]], list[int]]:
        """As :meth:`ReferenceDecoder.decode`."""
        texts = [list(prompt) for prompt in prompts]
        running = list(range(len(texts)))
        for _ in range(max_tokens):
            for row, token in zip(running, self._next([texts[row] for row in running]), strict=True):
                texts[row].append(token)
            running = [row for row in running if texts[row][-1] != self._ids.end]
            if not running:
                break
        answers = [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
        completions = [answer[:-1] if answer[-1] == self._ids.end else answer for answer in answers]
        return completions, [len(answer) for answer in answers]

    def _next(self, texts: list[list[int]]) -> list[int]:
        length = max(map(len, texts))
        tokens_RN = torch.tensor([text + [self._ids.end] * (length - len(text)) for text in texts])
        positions_RN = torch.arange(length).expand(len(texts), length)
        mask = attention_mask(positions_RN, torch.zeros_like(tokens_RN, dtype=torch.bool))
        last_R = torch.tensor([row * length + len(text) - 1 for row, text in enumerate(texts)])
        logits_RV = _logits(self._model, tokens_RN, positions_RN, mask, last_R)
        logits_RV[:, self._ids.mask] = -torch.inf
        tokens: list[int] = logits_RV.argmax(1).tolist()
        return tokens


def _logits(model: DiffusionLM, tokens_RN: Tensor, positions_RN: Tensor, mask_R1NN: Tensor, places_M: Tensor) -> Tensor:
    """Float32 logits ``[M, V]`` at flat places (into R * N), on the CPU wherever the model is."""
    device = device_of(model)
    hidden_TD = hidden_states(model, tokens_RN.to(device), positions_RN.to(device), mask_R1NN.to(device))
    logits_MV: Tensor = model.compute_logits(hidden_TD[places_M.to(device)])
    return logits_MV.float().cpu()


def validate(
    decoder: Decoder, tokenizer: Tokenizer, per_kind: int, max_tokens: int = 64, seed: int = 0
) -> dict[str, Score]:
    """Decode held-out prompts of every kind."""
    scores: dict[str, Score] = {}
    ids = SpecialIds.of(tokenizer)
    for kind in TASKS:
        samples = held_out_samples(kind, per_kind, seed)
        if samples:
            scores[kind] = _score(decoder, tokenizer, ids, samples, max_tokens)
    return scores


def exact_matches(decoder: Decoder, tokenizer: Tokenizer, per_kind: int) -> dict[str, float]:
    """Share of right answers by kind, as a job's ``validate`` returns it."""
    return {kind: score.accuracy for kind, score in validate(decoder, tokenizer, per_kind).items()}


def _score(decoder: Decoder, tokenizer: Tokenizer, ids: SpecialIds, samples: list[Sample], max_tokens: int) -> Score:
    completions: list[list[int]] = []
    forwards = 0
    for start in range(0, len(samples), ROWS_PER_FORWARD):
        prompts = [encode_prompt(tokenizer, ids, sample.prompt) for sample in samples[start : start + ROWS_PER_FORWARD]]
        decoded, steps = decoder.decode(prompts, max_tokens)
        completions += decoded
        forwards += sum(steps)
    texts = tokenizer.decode_batch(completions)
    right = sum(matches(sample.answer, text) for sample, text in zip(samples, texts, strict=True))
    return Score(right, len(samples), forwards, sum(len(tokens) + 1 for tokens in completions))
