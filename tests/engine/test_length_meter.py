"""What a rank measures of canvases that may grow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend
from engine.columns import Columns
from engine.decoding.decoder import Selection
from engine.decoding.sampler import SAMPLING_COLUMNS
from engine.length_meter import LengthMeter, least_certain
from engine.models.spec import CheckpointTensor, DiffusionLM
from engine.plan import LengthProbes
from tests.helpers.decoding import Block, make_block_rows, make_candidates
from tests.helpers.engines import EOS, VOCAB_SIZE, spec_of


class Plain(DiffusionLM):
    """Logits are the hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = spec_of("bidirectional")

    def embed(self, token_ids_T: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(
        self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend, read_M: Tensor | None = None
    ) -> Tensor:
        raise NotImplementedError

    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        return hidden_MD

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        return iter(())


def meter(guidance: float = 0.0, at_a_time: int = 1000) -> LengthMeter:
    columns = Columns(4, torch.device("cpu"))
    columns.declare("sampling", SAMPLING_COLUMNS)
    columns.write("sampling", 3, {"guidance": guidance})
    return LengthMeter(Plain(), columns, at_a_time)


def probes(**changes: list[float]) -> LengthProbes:
    """Block 1 of two: its four generated positions are tokens 2 to 5 of the forward."""
    fields: dict[str, list[float]] = {
        "block_P": [1],
        "start_P": [10],
        "end_P": [14],
        "first_token_P": [2],
        "guide_token_P": [-1],
        "window_P": [4],
    } | changes
    numbers = {name: np.array(values, np.int64) for name, values in fields.items()}
    return LengthProbes(**numbers, hold_below_P=np.array([0.5], np.float32))


def hidden(num_sure: int, num_tokens: int = 10) -> Tensor:
    """The last positions of [2, 6) are certain ends of text."""
    hidden_TD = torch.zeros(num_tokens, VOCAB_SIZE)
    hidden_TD[:, 0] = 100.0
    hidden_TD[6 - num_sure : 6] = 0.0
    hidden_TD[6 - num_sure : 6, EOS] = 100.0
    return hidden_TD


@pytest.mark.parametrize("at_a_time", [1000, 1])
@pytest.mark.parametrize(("num_sure", "sure"), [(0, 0.0), (1, 0.25), (4, 1.0)])
def test_only_probed_blocks_are_measured(num_sure: int, sure: float, at_a_time: int) -> None:
    eos_N = meter(at_a_time=at_a_time).end_confidence(probes(), torch.tensor([0, 3]), hidden(num_sure))
    assert eos_N[0].isnan()
    assert eos_N[1].item() == pytest.approx(sure)


def test_guidance_changes_what_is_expected() -> None:
    twins = torch.zeros(10, VOCAB_SIZE)
    twins[:, EOS] = 300.0
    hidden_TD = torch.cat((hidden(4), twins))
    slots_N, guided = torch.tensor([0, 3]), probes(guide_token_P=[12])
    assert meter(0.0).end_confidence(guided, slots_N, hidden_TD)[1].item() == pytest.approx(1.0)
    assert meter(1.0).end_confidence(guided, slots_N, hidden_TD)[1].item() == pytest.approx(0.0)


@pytest.mark.parametrize(("sure", "held"), [(0.4, True), (0.5, False)])
def test_a_block_whose_canvas_is_too_short_decides_nothing(sure: float, held: bool) -> None:
    selection = Selection(torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.int64))
    kept = meter().hold(probes(), torch.tensor([torch.nan, sure]), selection)
    assert kept.transfer_NB.all(dim=1).tolist() == [True, not held]


def test_the_least_certain_mask_that_stays() -> None:
    blocks = [
        Block(confidence=[0.3, 0.1, 0.1, 0.9]),
        Block(confidence=[0.3, 0.1, 0.2, 0.9]),
        Block(confidence=[0.3, 0.1, 0.1, 0.9], masked=[False] * 4),
    ]
    candidates = make_candidates(blocks, 4)
    transfer = torch.zeros(3, 4, dtype=torch.bool)
    transfer[1, 1] = True
    doubt, offset = least_certain(make_block_rows(blocks, 4), candidates, Selection(transfer, candidates.tokens_NB))
    assert doubt[:2].tolist() == pytest.approx([0.1, 0.2])
    assert doubt[2].isnan()
    assert offset[:2].tolist() == [1, 2]
