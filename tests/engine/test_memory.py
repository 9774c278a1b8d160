"""engine/memory.py against what an engine really allocates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.bench.throughput.shapes import shape
from engine.build import build_core
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.layout import MAX_ALIGNED_BLOCK_LENGTH
from engine.memory import LOGIT_BYTES, plan_checkpoint, plan_memory, weight_bytes
from engine.model_runner import MAX_LOGITS
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import build_model
from engine.models.spec import ModelSpec
from tests.helpers.checkpoints import write_llada, write_sdar

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MOE = shape("llada-moe-67m")


@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(max_num_seqs=3, max_model_len=64),
        EngineConfig(max_num_seqs=3, page_size=16, kv_cache_positions=1000),
        EngineConfig(max_num_seqs=2, max_model_len=50, page_size=16, dtype="bfloat16"),
    ],
)
@pytest.mark.parametrize("write", [write_llada, write_sdar])
def test_weights_and_kv_are_what_is_allocated(tmp_path: Path, config: EngineConfig, write: object) -> None:
    checkpoint = open_checkpoint(write(tmp_path))  # type: ignore[operator]
    plan = plan_checkpoint(checkpoint, config)
    core = build_core(checkpoint, config, config.max_model_len or checkpoint.spec.max_position_embeddings)
    runner = core._executor._runner  # type: ignore[attr-defined]
    assert plan.kv_bytes == runner._cache.keys.nbytes + runner._cache.values.nbytes
    assert plan.weight_bytes == sum(parameter.nbytes for parameter in runner._model.parameters())
    assert plan.slot_len == runner._canvas.tokens.shape[1] or plan.slot_len + 1 == runner._canvas.tokens.shape[1]
    assert plan.total_bytes > plan.weight_bytes + plan.kv_bytes


def test_routers_stay_in_float32_and_tied_weights_count_once() -> None:
    model = build_model(MOE)
    routers = sum(parameter.numel() for name, parameter in model.named_parameters() if ".gate.weight" in name)
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert weight_bytes(model, torch.bfloat16) == 2 * everything + 2 * routers
    separate, tied = (build_model(replace(MOE, tie_word_embeddings=tied)) for tied in (False, True))
    head = 2 * MOE.vocab_size * MOE.hidden_size
    assert weight_bytes(separate, torch.bfloat16) - weight_bytes(tied, torch.bfloat16) == head


def layout(tensor: int, expert: int) -> EngineConfig:
    return EngineConfig(max_num_seqs=4, tensor_parallel_size=tensor, expert_parallel_size=expert)


def test_ranks_share_matrices_experts_and_heads() -> None:
    one, tensor, expert, both = (
        plan_memory(MOE, layout(*ranks), torch.bfloat16, CUDA) for ranks in ((1, 1), (2, 1), (1, 4), (2, 4))
    )
    assert tensor.kv_bytes == one.kv_bytes // 2
    assert expert.kv_bytes == one.kv_bytes
    experts = sum(parameter.numel() for parameter in build_model(MOE).parameters() if parameter.dim() == 3) * 2
    assert one.weight_bytes - expert.weight_bytes == experts * 3 // 4
    dense = one.weight_bytes - tensor.weight_bytes - experts // 2
    assert one.weight_bytes - both.weight_bytes == dense + experts * 3 // 4


def test_ranks_share_the_logits_of_few_positions_and_hold_those_of_more_at_a_time() -> None:
    few = [
        plan_memory(MOE, replace(layout(tensor, 1), max_num_seqs=1, max_model_len=64), torch.bfloat16, CUDA)
        for tensor in (1, 2)
    ]
    assert few[1].logits_bytes == few[0].logits_bytes // 2
    assert few[0].drawing_bytes // 2 < few[1].drawing_bytes < few[0].drawing_bytes
    for tensor in (1, 2):
        many = plan_memory(MOE, layout(tensor, 1), torch.bfloat16, CUDA)
        assert 0.99 < many.logits_bytes / (MAX_LOGITS * LOGIT_BYTES) <= 1


def test_a_rank_holds_one_kv_head_at_least() -> None:
    spec = replace(shape("llada-8b"), num_kv_heads=4)
    plans = [plan_memory(spec, layout(tensor, 1), torch.bfloat16, CUDA) for tensor in (4, 8)]
    assert plans[0].kv_position_bytes == plans[1].kv_position_bytes
    matrices = spec.num_layers * 2 * spec.head_dim * spec.hidden_size * 2  # one head's K and V projections, bfloat16
    even = sum(p.numel() * 2 // 8 if p.dim() == 2 else p.numel() * 2 for p in build_model(spec).parameters())
    assert plans[1].weight_bytes == even + matrices // 2


def test_known_sizes() -> None:
    """LLaDA-8B in bfloat16: 8.02 B parameters; 32 layers of 32 heads of 128, keys and values, 2 bytes each."""
    plan = plan_memory(shape("llada-8b"), EngineConfig(max_num_seqs=2), torch.bfloat16, CUDA)
    assert plan.weight_bytes == pytest.approx(2 * 8.02e9, rel=0.001)
    assert plan.kv_position_bytes == 2 * 32 * 32 * 128 * 2
    assert plan.kv_slot_bytes == 2 * 2**30


@pytest.mark.parametrize(
    ("spec", "config", "words"),
    [
        (shape("llada-tiny"), EngineConfig(max_num_batched_tokens=8), "max_num_batched_tokens"),
        (shape("llada-tiny"), layout(1, 2), "no experts to divide"),
        (MOE, layout(3, 1), "does not divide 4 attention heads"),
        (MOE, layout(2, 3), "must be a multiple"),
    ],
)
def test_what_the_engine_refuses_is_refused(spec: ModelSpec, config: EngineConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_memory(spec, config, torch.float32, CPU)


def test_sampling_takes_more() -> None:
    config = EngineConfig(max_num_seqs=4, max_model_len=64)
    plan = plan_memory(MOE, config, torch.float32, CPU)
    positions = 4 * 64
    assert plan.logits_bytes == positions * MOE.vocab_size * LOGIT_BYTES
    assert plan.drawing_bytes > plan.logits_bytes
    block_causal = plan_memory(shape("sdar-70m"), EngineConfig(max_num_seqs=1), torch.float32, CPU)
    assert block_causal.logits_bytes == MAX_ALIGNED_BLOCK_LENGTH * shape("sdar-70m").vocab_size * LOGIT_BYTES


def test_recorded_steps_keep_memory_of_their_own() -> None:
    config = EngineConfig(max_num_seqs=4)
    recorded, eager = (
        plan_memory(MOE, replace(config, cuda_graphs=choice), torch.bfloat16, CUDA)  # type: ignore[arg-type]
        for choice in ("auto", "off")
    )
    assert eager.graph_bytes == 0
    assert recorded.graph_bytes > 4 * MOE.block_length * MOE.vocab_size * LOGIT_BYTES
    assert recorded.total_bytes - eager.total_bytes == recorded.graph_bytes + 256 * recorded.kv_position_bytes
    assert plan_memory(MOE, config, torch.bfloat16, CPU).graph_bytes == 0
