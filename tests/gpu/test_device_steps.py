"""On a CUDA device: kernels, recorded steps and several steps per look give what plain steps give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engine.attention.backend import AttentionBackend
from engine.attention.flex import FlexAttention
from engine.attention.sdpa import SDPAAttention
from engine.attention.token_rows import TokenRows
from engine.attention.varlen import VarlenAttention
from engine.bench.throughput.shapes import random_model, shape
from engine.build import assemble_core
from engine.cache.kv_cache import KVCache
from engine.cache.page_table import PageTable
from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.models.spec import DiffusionLM
from engine.plan import Rows
from engine.tokenizer import MissingTokenizer
from tests.helpers.engines import Outcome, drive, make_request
from tests.helpers.networks import rows

CUDA = torch.device("cuda")
PLANS = {
    "ragged": rows((0, 300, 332, 0, 700), (1, 0, 64, 0, 64), (1, 64, 96, 0, 96), (2, 10, 42, 0, 513)),
    "windows": rows((0, 300, 332, 200, 400), (1, 0, 64, 0, 64)),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
@pytest.mark.parametrize("way", [VarlenAttention, FlexAttention])
@pytest.mark.parametrize("kv_heads", [2, 8])
def test_kernels_agree(way: Any, plan: Rows, kv_heads: int) -> None:
    generator = torch.Generator(CUDA).manual_seed(0)
    table = PageTable(3, 768, 256, CUDA)
    for slot, pages in enumerate(([7, 2, 5], [1, 8, 4], [3, 0, 6])):
        table.assign(slot, np.array(pages))
    num_tokens = len(plan.tokens()[0])
    queries = torch.randn(num_tokens, 8, 64, generator=generator, device=CUDA, dtype=torch.bfloat16)
    fresh = [torch.randn(num_tokens, kv_heads, 64, generator=generator, device=CUDA).bfloat16() for _ in range(2)]

    def run(make: Any) -> torch.Tensor:
        cache = KVCache(1, 9, 256, kv_heads, 64, torch.bfloat16, CUDA)
        for side in (cache.keys, cache.values):
            side.normal_(generator=torch.Generator(CUDA).manual_seed(1))
        attention: AttentionBackend = make(cache)
        return attention.attend(0, queries, *fresh)

    plain = run(lambda cache: SDPAAttention(cache, plan, table.host))
    other = run(lambda cache: way(cache, TokenRows.of(plan, table), table))
    torch.testing.assert_close(other, plain, atol=2e-2, rtol=2e-2)


def engine_of(model: DiffusionLM, **options: Any) -> LLMEngine:
    config = EngineConfig(**({"device": "cuda", "max_num_seqs": 6, "max_num_batched_tokens": 4096} | options))
    return LLMEngine(assemble_core(model, config, 256), model.spec, MissingTokenizer(), config, 256)


def answers(engine: LLMEngine) -> dict[str, Outcome]:
    return drive(engine, [make_request(f"r{n}", [5 + n] * (9 + 7 * n), max_tokens=64) for n in range(5)])


@pytest.mark.parametrize("options", [{"cuda_graphs": "off", "steps_per_look": 4}, {"steps_per_look": 1}, {}])
@pytest.mark.parametrize("name", ["llada-tiny", "sdar-42m"])
def test_recorded_and_unwatched_steps_give_the_tokens_of_plain_ones(name: str, options: dict[str, Any]) -> None:
    """In float32, where thresholds are not a matter of rounding."""
    model = random_model(replace(shape(name), num_layers=2), torch.float32, CUDA)
    plain = answers(engine_of(model, cuda_graphs="off", steps_per_look=1))
    engine = engine_of(model, **options)
    assert answers(engine) == plain
    assert (engine.stats().graph_forwards > 0) == ("cuda_graphs" not in options)


def test_sixteen_bits_run_through_flash_attention_and_graphs() -> None:
    model = random_model(replace(shape("llada-moe-67m"), num_layers=2), torch.bfloat16, CUDA)
    engine = engine_of(model)
    found = answers(engine)
    assert all(len(one.token_ids) > 0 for one in found.values())
    assert engine.stats().graph_forwards > 0


def test_nothing_waits_for_the_device_inside_a_step() -> None:
    """torch itself refuses: whatever synchronises while this is set raises, but for waiting on an event."""
    model = random_model(replace(shape("llada-tiny"), num_layers=2), torch.bfloat16, CUDA)
    engine = engine_of(model, cuda_graphs="off")
    answers(engine)
    for n in range(3):
        engine.add_request(make_request(f"again-{n}", [7] * 20, max_tokens=32))
    torch.cuda.set_sync_debug_mode("error")
    try:
        while engine.has_unfinished_requests():
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
