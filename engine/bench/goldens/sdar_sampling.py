"""SDAR's distribution after temperature, top-k and top-p, and the probability of its most probable token.

Shape legend: M recorded positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import Tensor

from engine.bench.goldens.case import Case, DirectCase, UnreadableCase, first_difference
from engine.bench.goldens.complaints import complaint
from engine.decoding.filtering import filter_top_k_top_p
from engine.decoding.sampler import Drawing, draw, propose
from engine.decoding.vocabulary import Vocabulary

TOLERANCE = 1e-5


class SamplingEntry(BaseModel):
    """Parameters of recording ``i``."""

    i: int
    temperature: float
    top_k: int
    top_p: float


class SamplingRecording(BaseModel):
    params: list[SamplingEntry]


class SamplingCase(DirectCase):
    """One setting applied to all recorded positions."""

    kind = "sdar"
    required = True

    def __init__(self, entry: SamplingEntry, tensors: dict[str, Tensor]) -> None:
        self.id = f"sampling:{entry.i}"
        self._entry = entry
        self._tensors = tensors

    def differences(self) -> list[str]:
        entry, logits_MV = self._entry, self._tensors["logits"].float()
        count, vocab_size = logits_MV.shape
        no_mask_MV = torch.cat((logits_MV, logits_MV.new_full((count, 1), -torch.inf)), dim=1)
        top_k_M, top_p_M = torch.full((count,), entry.top_k), torch.full((count,), entry.top_p)
        zeros_M = torch.zeros(count, dtype=torch.int64)
        drawing = Drawing(
            temperature_M=torch.full((count,), entry.temperature),
            top_k_M=top_k_M,
            top_p_M=top_p_M,
            seed_M=zeros_M,
            step_M=zeros_M,
            position_M=zeros_M,
            noise_M=zeros_M,
            sampled_confidence_M=zeros_M + 1,
            filtered=torch.arange(count),
        )
        padded = Vocabulary(vocab_size + 1)
        proposal = draw(no_mask_MV, padded, vocab_size, drawing, propose(no_mask_MV, padded, vocab_size))
        kept_MV = filter_top_k_top_p(logits_MV / entry.temperature, Vocabulary(vocab_size), top_k_M, top_p_M)
        found = first_difference("token", self._recorded("token").tolist(), proposal.tokens_M.tolist())
        found += self._farther("confidence", self._recorded("conf_generate"), proposal.confidence_M)
        return found + self._farther("probability", self._recorded("probs"), kept_MV.softmax(dim=1))

    def _recorded(self, name: str) -> Tensor:
        return self._tensors[f"{name}_{self._entry.i}"]

    def _farther(self, what: str, expected: Tensor, actual: Tensor) -> list[str]:
        distance = (expected - actual).abs().max().item()
        return [f"{what}: off by {distance:.2g}"] if distance > TOLERANCE else []


def load_sampling(folder: Path) -> Iterator[Case]:
    """One case per recorded setting; none where the folder has no such recording."""
    file = folder / "sampling.json"
    if not file.is_file():
        return
    try:
        recording = SamplingRecording.model_validate_json(file.read_bytes())
        tensors = load_file(file.with_suffix(".safetensors"))
    except (ValueError, OSError) as error:
        yield UnreadableCase(SamplingCase.kind, "sampling", complaint(error))
    else:
        yield from (SamplingCase(entry, tensors) for entry in recording.params)
