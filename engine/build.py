"""Putting an engine core together from a checkpoint and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from engine.attention.ways import attention_way
from engine.cache import CACHE_POLICIES
from engine.cache.block_manager import BlockManager
from engine.cache.kv_cache import KVCache
from engine.cache.policy import AttentionPattern, CachePolicy
from engine.canvas_sharing import CanvasSharing
from engine.config import (
    EngineConfig,
    check_quantization,
    resolve_cuda_graphs,
    resolve_device,
    resolve_dtype,
    resolve_max_model_len,
    resolve_steps_per_look,
)
from engine.core import EngineCore
from engine.decoding import DECODERS
from engine.decoding.decoder import Decoder
from engine.errors import ConfigError
from engine.executor import Executor, LocalExecutor
from engine.graphs import CudaGraphs, GraphBackend
from engine.host_memory import keep_freed_memory
from engine.iteration import IterationManager
from engine.layers.experts import Experts
from engine.layout import MAX_ALIGNED_BLOCK_LENGTH
from engine.model_runner import ModelRunner
from engine.models.checkpoint import Checkpoint, open_checkpoint
from engine.models.division import check_division
from engine.models.loader import LoadProgress, load_model
from engine.models.quantization import check_quantizable, quantize_int8
from engine.models.spec import DiffusionLM, ModelSpec
from engine.pacing import ForwardBudget
from engine.parallel import ALONE, Ranks
from engine.rank_check import RankCheck
from engine.registry import Registry
from engine.scheduler import Scheduler, SchedulingRules
from engine.sharing import PrefixSharing, Sharing
from engine.slots import SlotTable
from engine.step_graphs import StepShape
from engine.strategy import DEFAULTS
from engine.telemetry import EngineTelemetry


def build_core(
    checkpoint: Checkpoint,
    config: EngineConfig,
    max_model_len: int,
    on_progress: Callable[[LoadProgress], None] | None = None,
    decoders: Registry[Decoder] = DECODERS,
    ranks: Ranks = ALONE,
    executor: Callable[[ModelRunner], Executor] = LocalExecutor,
    telemetry: EngineTelemetry | None = None,
) -> EngineCore:
    """Load the weights on this process's device and wire up the leading rank: scheduler, plans and its own runner,
    which ``executor`` wraps where there are others."""
    model = _load(checkpoint, config, max_model_len, on_progress, ranks)
    return assemble_core(model, config, max_model_len, decoders, executor, ranks, telemetry)


def build_follower(
    checkpoint: Checkpoint,
    config: EngineConfig,
    max_model_len: int,
    ranks: Ranks,
    on_progress: Callable[[LoadProgress], None] | None = None,
    decoders: Registry[Decoder] = DECODERS,
) -> ModelRunner:
    """Load this rank's part of the weights and wire up what executes the leading rank's plans."""
    model = _load(checkpoint, config, max_model_len, on_progress, ranks)
    return _make_runner(model, config, max_model_len, decoders, ranks)[0]


def load_follower(
    path: str | Path,
    config: EngineConfig,
    ranks: Ranks,
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> ModelRunner:
    """A follower's :meth:`engine.llm_engine.LLMEngine.from_pretrained`: its part of a checkpoint folder."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    checkpoint = open_checkpoint(path, config)
    max_model_len = resolve_max_model_len(config, checkpoint.spec.max_position_embeddings)
    return build_follower(checkpoint, config, max_model_len, ranks, on_progress)


def _load(
    checkpoint: Checkpoint,
    config: EngineConfig,
    max_model_len: int,
    on_progress: Callable[[LoadProgress], None] | None,
    ranks: Ranks,
) -> DiffusionLM:
    spec = checkpoint.spec
    if ranks.layout != config.layout:
        raise ConfigError(
            f"tensor_parallel_size {config.tensor_parallel_size} and expert_parallel_size "
            f"{config.expert_parallel_size} need {config.layout.world_size} ranks, and this is a rank of "
            f"{ranks.layout.world_size}; `lacuna serve` starts as many as are needed",
            "tensor_parallel_size",
        )
    check_settings(spec, config, max_model_len)
    device = resolve_device(config)
    check_quantization(config, device)
    dtype = resolve_dtype(config, device, checkpoint.weights.dtype)
    model = load_model(checkpoint.path, spec, dtype, device, on_progress, ranks)
    return quantize_int8(model) if config.quantization == "int8" else model


def assemble_core(
    model: DiffusionLM,
    config: EngineConfig,
    max_model_len: int,
    decoders: Registry[Decoder] = DECODERS,
    executor: Callable[[ModelRunner], Executor] = LocalExecutor,
    ranks: Ranks = ALONE,
    telemetry: EngineTelemetry | None = None,
    graphs: GraphBackend | None = None,
) -> EngineCore:
    """Wire up the leading rank around a network that has its weights; K/V get its dtype and device. ``graphs`` records
    steps instead of what the settings ask for."""
    spec = model.spec
    runner, blocks = _make_runner(model, config, max_model_len, decoders, ranks, graphs)
    policies = {
        name: policy(spec.attention, fused=config.fused, lead=spec.logit_shift if config.fused else 0)
        for name in CACHE_POLICIES
        if spec.attention in (policy := CACHE_POLICIES.get(name)).patterns
    }
    slots = SlotTable(config.max_num_seqs, slot_length(spec, max_model_len), spec.mask_token_id)
    return EngineCore(
        Scheduler(config.max_num_seqs, blocks, scheduling_rules(config)),
        blocks,
        IterationManager(
            slots,
            policies,
            forward_budget(config, runner.device),
            fused=config.fused,
            logit_shift=spec.logit_shift,
            eos_token_id=min(spec.stop_token_ids, default=None),
            steps_per_look=resolve_steps_per_look(config, next(model.parameters()).device),
            sharing=make_sharing(config, spec.attention, blocks, slots, policies),
        ),
        executor(runner),
        telemetry,
    )


def make_sharing(
    config: EngineConfig,
    attention: AttentionPattern,
    blocks: BlockManager,
    slots: SlotTable,
    policies: Mapping[str, CachePolicy],
) -> Sharing | None:
    """What requests of a model may compute for each other, if at all. Unfused, every request has a first pass of its
    own, as published."""
    if not config.prefix_sharing:
        return None
    if attention == "block_causal":
        return PrefixSharing(blocks, slots)
    return CanvasSharing(blocks, slots, policies) if config.fused else None


def _make_runner(
    model: DiffusionLM,
    config: EngineConfig,
    max_model_len: int,
    decoders: Registry[Decoder],
    ranks: Ranks,
    graphs: GraphBackend | None = None,
) -> tuple[ModelRunner, BlockManager]:
    """The runner of a rank, and the manager of pages, which only the leading rank needs afterwards. Steps that can be
    recorded are recorded now, so that no request waits for it."""
    weight, spec = next(model.parameters()), model.spec
    if weight.device.type == "cpu":
        keep_freed_memory()
    slot_len = slot_length(spec, max_model_len)
    blocks = make_block_manager(config, weight.device, slot_len)
    if graphs is None and resolve_cuda_graphs(config, weight.device) and _can_be_recorded(model, config):
        graphs = CudaGraphs(weight.device)
    cache = _allocate_cache(model, blocks, 0 if graphs is None else 1, weight.dtype, weight.device)
    way = attention_way(config, weight.device, weight.dtype, spec.head_dim, blocks.page_size)
    check = RankCheck(ranks.world, config.check_ranks)
    runner = ModelRunner(model, cache, config.max_num_seqs, slot_len, decoders, check, way, graphs)
    runner.warm_up(usual_step(spec, fused=config.fused))
    return runner, blocks


def _can_be_recorded(model: DiffusionLM, config: EngineConfig) -> bool:
    """Whether the host need not wait within the network; ConfigError where that is asked for."""
    dtype = next(model.parameters()).dtype
    experts = (module for module in model.modules() if isinstance(module, Experts))
    if all(one.groups(dtype, on_cuda=True) for one in experts):
        return True
    if config.cuda_graphs == "on":
        raise ConfigError(
            f"cuda_graphs 'on' needs experts in bfloat16 of a multiple of 8 in width, not {dtype}; use dtype bfloat16, "
            "or cuda_graphs 'auto' or 'off'",
            "cuda_graphs",
        )
    return False


def usual_step(spec: ModelSpec, *, fused: bool) -> StepShape:
    """The step inside a block, of a request that leaves decoder, cache policy and block length to the model."""
    lead = spec.logit_shift if fused and spec.attention == "bidirectional" else 0
    return StepShape(1, lead + spec.block_length, spec.block_length, DEFAULTS[spec.attention][0])


def forward_budget(config: EngineConfig, device: torch.device) -> ForwardBudget:
    """What a forward may hold. By default long prompts get at least 32 positions on a CPU, where time follows the
    number of positions, and on CUDA 256: about so many cost no more than the weights that have to be read anyway."""
    long_prefill = config.long_prefill_budget or (32 if device.type == "cpu" else 256)
    return ForwardBudget(config.max_num_batched_tokens, long_prefill)


def scheduling_rules(config: EngineConfig) -> SchedulingRules:
    """The part of the settings that decides who runs."""
    return SchedulingRules(
        max_queue_len=config.max_queue_len,
        aging_s=config.aging_s,
        preemption=config.preemption,
        max_preemptions=config.max_preemptions,
    )


def check_settings(spec: ModelSpec, config: EngineConfig, max_model_len: int) -> None:
    """ConfigError where a model cannot be divided or computed as the settings say."""
    check_division(spec, config.layout)
    if config.quantization == "int8":
        check_quantizable(spec)
    if spec.attention == "bidirectional" and config.max_num_batched_tokens < max_model_len:
        raise ConfigError(
            f"max_num_batched_tokens {config.max_num_batched_tokens} is smaller than max_model_len {max_model_len}: a "
            "bidirectional model computes a whole canvas in one forward; raise the one or lower the other",
            "max_num_batched_tokens",
        )


def slot_length(spec: ModelSpec, max_model_len: int) -> int:
    """Canvas positions of a slot: those of a request, and for a block-causal model the rest of its last block."""
    return max_model_len + (MAX_ALIGNED_BLOCK_LENGTH - 1 if spec.attention == "block_causal" else 0)


def make_block_manager(config: EngineConfig, device: torch.device, slot_len: int) -> BlockManager:
    """Pages of the size that suits the device: on a CPU a whole slot, so that K/V are read in place."""
    page_size = config.page_size or (slot_len if device.type == "cpu" else 256)
    per_slot = -(-slot_len // page_size)
    num_pages = config.max_num_seqs * per_slot
    if config.kv_cache_positions is not None:
        num_pages = min(num_pages, config.kv_cache_positions // page_size)
    if num_pages < per_slot:
        raise ConfigError(
            f"kv_cache_positions {config.kv_cache_positions} holds less than one canvas of {slot_len} positions",
            "kv_cache_positions",
        )
    return BlockManager(config.max_num_seqs, num_pages, page_size, slot_len)


def _allocate_cache(
    model: DiffusionLM, blocks: BlockManager, spare_pages: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    spec, num_kv_heads, num_pages = model.spec, model.num_kv_heads, blocks.num_pages + spare_pages
    try:
        return KVCache(spec.num_layers, num_pages, blocks.page_size, num_kv_heads, spec.head_dim, dtype, device)
    except RuntimeError as error:  # what torch raises when memory cannot be had, on any device
        position_bytes = 2 * spec.num_layers * num_kv_heads * spec.head_dim * dtype.itemsize
        gib = position_bytes * num_pages * blocks.page_size / 2**30
        raise ConfigError(
            f"{gib:.1f} GiB of K/V memory cannot be allocated on {device}; lower max_num_seqs, max_model_len or "
            "kv_cache_positions",
            "kv_cache_positions",
        ) from error
