"""The reference decoder, with a model that is told what to predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend
from engine.models.spec import CheckpointTensor, DiffusionLM, ModelSpec
from engine.training.data import SpecialIds
from engine.training.validation import ReferenceDecoder

IDS = SpecialIds(end=0, mask=1, begin=2, user=3, assistant=4, system=5)
SPEC = ModelSpec(
    architecture="LLaDAModelLM",
    attention="bidirectional",
    vocab_size=64,
    hidden_size=1,
    intermediate_size=1,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=1,
    max_position_embeddings=128,
    rope_theta=1e4,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
    attention_bias=False,
    mask_token_id=IDS.mask,
    stop_token_ids=frozenset({IDS.end}),
    block_length=4,
)


class Scripted(DiffusionLM):
    """Predicts ``script[position]`` everywhere, with a confidence of 0.99 or 0.5."""

    def __init__(self, spec: ModelSpec, script: list[int], sure: set[int]) -> None:
        super().__init__()
        self.spec = spec
        self.script = torch.tensor(script)
        self.sure = torch.tensor([position in sure for position in range(len(script))])

    def embed(self, token_ids_T: Tensor) -> Tensor:
        return token_ids_T[:, None].float()

    def forward(
        self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend, read_M: Tensor | None = None
    ) -> Tensor:
        return positions_T[:, None].float()

    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        positions = hidden_MD[:, 0].long()
        probability = torch.where(self.sure[positions], 0.99, 0.5)
        rest = ((1 - probability) / 63)[:, None].expand(-1, 64)
        return rest.scatter(1, self.script[positions][:, None], probability[:, None]).log()

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        return iter(())


SCRIPT = [9, 9, 10, 11, 12, 13, 14, 15, IDS.end, IDS.end, 9, 9, 9, 9, 9, 9]


@pytest.mark.parametrize(
    ("attention", "threshold", "forwards"),
    [("bidirectional", None, 7), ("bidirectional", 0.9, 4), ("block_causal", None, 7), ("block_causal", 0.9, 5)],
)
def test_decodes_up_to_the_first_end(attention: str, threshold: float | None, forwards: int) -> None:
    spec = replace(SPEC, attention=attention)  # type: ignore[arg-type]
    model = Scripted(spec, SCRIPT, sure={2, 3, 6, 7, 8})
    completions, steps = ReferenceDecoder(model, IDS, 4, threshold).decode([[IDS.begin, IDS.user]], 8)
    assert completions == [[10, 11, 12, 13, 14, 15]]
    assert steps == [forwards]


def test_rows_of_different_length_do_not_disturb_each_other() -> None:
    model = Scripted(SPEC, SCRIPT, sure=set(range(16)))
    decoder = ReferenceDecoder(model, IDS, 4, 0.9)
    together, _ = decoder.decode([[2, 3], [2, 3, 9, 9, 4]], 8)
    assert together == [decoder.decode([[2, 3]], 8)[0][0], decoder.decode([[2, 3, 9, 9, 4]], 8)[0][0]]
