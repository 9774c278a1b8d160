"""The last layer makes the outputs of those tokens alone that somebody reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend
from engine.attention.dense import DenseAttention
from engine.bench.throughput.shapes import random_model, shape
from engine.build import assemble_core
from engine.config import EngineConfig
from engine.layers.routing import BlockRouting, SigmoidRouting
from engine.llm_engine import LLMEngine
from engine.models.spec import DiffusionLM, MoESpec
from engine.tokenizer import MissingTokenizer
from tests.helpers.engines import drive, make_request
from tests.helpers.mixture import mixture

CPU = torch.device("cpu")
LLADA = replace(shape("llada-tiny"), stop_token_ids=frozenset({257}))
MOE = replace(
    shape("llada-moe-67m"), num_layers=2, vocab_size=4096, mask_token_id=4000, stop_token_ids=frozenset({257})
)
GROUPS, BLOCKS = (
    MoESpec(num_experts=16, intermediate_size=64, routing=routing, expert_bias=True)
    for routing in (
        SigmoidRouting(experts_per_token=4, num_groups=4, groups_per_token=2),
        BlockRouting(experts_per_token=4, capacity=6),
    )
)
LLADA2 = replace(MOE, attention="block_causal", architecture="LLaDA2MoeModelLM")
SPECS = {
    "llada": LLADA,
    "sdar": replace(shape("sdar-tiny"), stop_token_ids=frozenset({257})),
    "dream": replace(LLADA, architecture="DreamModel", logit_shift=1),
    "llada-moe": MOE,
    "groups-of-experts": replace(LLADA2, moe=GROUPS),
    "blocks-of-experts": replace(LLADA2, moe=BLOCKS),
}


def watch(model: DiffusionLM, *, poisoned: bool) -> list[tuple[int, int]]:
    """What of each forward's tokens is read, and how many there are. The others' hidden states are no numbers
    afterwards, or without ``poisoned`` they are made."""
    seen: list[tuple[int, int]] = []
    forward = model.forward

    def watched(
        embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend, read_M: Tensor | None = None
    ) -> Tensor:
        seen.append((len(embeddings_TD) if read_M is None else len(read_M), len(embeddings_TD)))
        hidden_TD = forward(embeddings_TD, positions_T, attention, read_M if poisoned else None)
        if read_M is not None and poisoned:
            others_T = torch.ones(len(hidden_TD), dtype=torch.bool).index_fill_(0, read_M, False)
            hidden_TD[others_T] = torch.nan
        return hidden_TD

    model.forward = watched  # type: ignore[method-assign]
    return seen


def engine_over(name: str, *, poisoned: bool, budget: int = 300) -> tuple[LLMEngine, list[tuple[int, int]]]:
    model = random_model(SPECS[name], torch.float32, CPU)
    seen = watch(model, poisoned=poisoned)
    config = EngineConfig(max_num_seqs=40, page_size=16, device="cpu", max_num_batched_tokens=budget)
    return LLMEngine(assemble_core(model, config, 64), model.spec, MissingTokenizer(), config, 64), seen


@pytest.mark.parametrize("name", SPECS)
def test_no_strategy_reads_what_was_not_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All decoders, policies, transforms, lengths and guidance at once: not a number anywhere would change a token."""
    monkeypatch.setattr("engine.read_tokens.LEAST_SPARED", 1)
    outcomes = []
    for poisoned in (False, True):
        engine, seen = engine_over(name, poisoned=poisoned)
        outcomes.append(drive(engine, mixture(engine, caches_per_decoder=1)))
    assert outcomes[0] == outcomes[1]
    assert min(read / total for read, total in seen) < 0.7


def test_experts_of_a_block_are_chosen_by_all_of_its_tokens() -> None:
    model = random_model(SPECS["blocks-of-experts"], torch.float32, CPU)
    embeddings_TD, block_T = model.embed(torch.arange(8)), torch.arange(8) // 4
    hidden = [
        model(embeddings_TD, torch.arange(8), DenseAttention(1, 8, row_T=block_T), read_M)
        for read_M in (None, torch.tensor([2, 5]))
    ]
    assert torch.equal(*hidden)


def test_of_a_long_canvas_the_open_positions_of_the_block_are_read() -> None:
    engine, seen = engine_over("llada", poisoned=True)
    strategy = {"decoder": "low_confidence", "cache": "dual", "block_length": 4}
    drive(engine, [make_request("one", [1] * 40, engine, strategy=strategy, max_tokens=8)])
    assert seen == [(4, 48), (4, 4), (4, 4), (4, 4)] * 2


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.attention == "block_causal"])
def test_of_a_prompt_in_chunks_nothing_is_read(name: str) -> None:
    """A layer is given one token all the same: none of them knows how to compute nothing."""
    engine, seen = engine_over(name, poisoned=True, budget=40)
    strategy = {"decoder": "low_confidence_static", "steps": 2, "block_length": 4}
    drive(engine, [make_request("one", [1] * 56, engine, strategy=strategy, max_tokens=4)])
    assert seen == [(1, 40), (20, 20), (4, 4)]
