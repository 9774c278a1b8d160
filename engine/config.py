"""Settings of one engine, and what ``"auto"`` means on this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from engine.errors import ConfigError
from engine.parallel import ExpertDispatch, ParallelLayout

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEFAULT_MAX_MODEL_LEN = 4096
MAX_STEPS_PER_LOOK = 16

TokenId = Annotated[int, Ge(0)]


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class OwnStrategy:
    """A named strategy of the operator. A version of a name means one thing: changed options are a new version."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*$", description="What requests call it.")]
    options: Annotated[dict[str, Any], Field(description="As a request would give them.")]
    version: Annotated[int, Ge(1), Field(description="name@version pins it; the bare name is the newest.")] = 1
    goal: Annotated[
        Literal["", "quality", "balanced", "fast"], Field(description="Offered to requests that ask for this goal.")
    ] = ""
    source: Annotated[str, Field(description="Where the options come from.")] = "this server's settings"
    description: Annotated[str, Field(description="Shown in the list of strategies.")] = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EngineConfig:
    """What an operator may set. None and ``"auto"`` leave the choice to the engine."""

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="Type of weights and activations. auto: float32 on a CPU, the checkpoint's own on CUDA."),
    ] = "auto"
    quantization: Annotated[
        Literal["none", "int8"],
        Field(
            description="int8: weights of projections and output head in int8, on a CPU; a quarter of their float32 "
            "memory. Rounds activations too: check answers with `lacuna eval`."
        ),
    ] = "none"
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto (CUDA where there is one), cpu, cuda or cuda:N."),
    ] = "auto"
    max_num_seqs: Annotated[int, Ge(1), Le(4096), Field(description="Requests that run at the same time.")] = 16
    max_model_len: Annotated[
        int | None,
        Ge(1),
        Field(description=f"Canvas positions per request. None: the model's own, at most {DEFAULT_MAX_MODEL_LEN}."),
    ] = None
    max_num_batched_tokens: Annotated[int, Ge(1), Field(description="Token budget of one forward.")] = 8192
    long_prefill_budget: Annotated[
        int | None,
        Ge(1),
        Field(
            description="Positions of long prompts in a forward beside requests that decode, or half as many as decode "
            "if that is more. None: 32 on a CPU, 256 on CUDA."
        ),
    ] = None
    max_queue_len: Annotated[
        int, Ge(0), Field(description="Requests that wait inside the engine; more are refused as overloaded.")
    ] = 1024
    aging_s: Annotated[
        float,
        Ge(0),
        Le(86_400),
        Field(
            description="A waiting request rises by one priority after so long, then by two, by four and so on: none "
            "starves. 0: never."
        ),
    ] = 10.0
    preemption: Annotated[
        Literal["off", "priority", "deadline"],
        Field(
            description="Whether a request may take the slot of a running one, which goes on later with the same "
            "tokens: of one with less priority (priority), also of one with a later deadline (deadline)."
        ),
    ] = "priority"
    max_preemptions: Annotated[int, Ge(0), Le(1000), Field(description="So often a request is preempted at most.")] = 2
    prefix_sharing: Annotated[
        bool,
        Field(
            description="Compute once what requests have in common: the beginnings of prompts (block-causal models), "
            "the first pass over equal canvases (bidirectional models). Requests with another cache_salt share nothing."
        ),
    ] = True
    page_size: Annotated[
        int | None, Ge(1), Field(description="Positions of a K/V page. None: the attention backend's choice.")
    ] = None
    kv_cache_positions: Annotated[
        int | None,
        Ge(1),
        Field(description="Positions of K/V memory in all. None: enough for max_num_seqs full canvases."),
    ] = None
    num_threads: Annotated[
        int | None, Ge(1), Field(description="Threads of one torch operation. None: torch's own choice.")
    ] = None
    tensor_parallel_size: Annotated[
        int, Ge(1), Le(1024), Field(description="Ranks that share attention, dense layers and vocabulary.")
    ] = 1
    expert_parallel_size: Annotated[
        int, Ge(1), Le(1024), Field(description="Ranks that share the experts of a mixture-of-experts model.")
    ] = 1
    expert_dispatch: Annotated[
        ExpertDispatch,
        Field(
            description="How tokens reach experts of other ranks. all_reduce: every rank computes all tokens with its "
            "experts. all_to_all: rows travel to their experts; for more than 16 ranks or so."
        ),
    ] = "all_reduce"
    check_ranks: Annotated[
        int, Ge(0), Field(description="Compare the canvases of all ranks at each so many forwards; 0 never.")
    ] = 0
    attention_backend: Annotated[
        Literal["auto", "sdpa", "varlen", "flex"],
        Field(
            description="Attention kernel. auto: varlen (FlashAttention over pages) on CUDA in 16 bits, else sdpa. "
            "flex: flex_attention, compiled at the first call."
        ),
    ] = "auto"
    cuda_graphs: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="Record denoising steps of a fixed shape as CUDA graphs at load and replay them. auto: on CUDA."
        ),
    ] = "auto"
    steps_per_look: Annotated[
        int | None,
        Ge(1),
        Le(MAX_STEPS_PER_LOOK),
        Field(
            description="Most denoising steps between two looks of the host, inside a block. Arrivals and aborts wait "
            "as long; blocks that are complete before compute for nothing. None: 1 on a CPU, 2 on CUDA."
        ),
    ] = None
    fused: Annotated[
        bool, Field(description="Fuse prefill and commit with denoising; off: a forward for each, as references do.")
    ] = True
    block_length: Annotated[
        int | None, Ge(1), Field(description="Diffusion block, instead of what the checkpoint says.")
    ] = None
    mask_token_id: Annotated[TokenId | None, Field(description="Mask id, instead of what the checkpoint says.")] = None
    stop_token_ids: Annotated[
        frozenset[TokenId] | None, Field(description="Ids that end a completion, instead of what the checkpoint says.")
    ] = None
    preset_family: Annotated[
        str | None, Field(description="Family whose presets apply, instead of what the checkpoint's name says.")
    ] = None
    strategies: Annotated[
        tuple[OwnStrategy, ...], Field(description="Named strategies beside the presets of the model's family.")
    ] = ()
    seed: Annotated[int, Field(description="Seed of requests that bring none.")] = 0

    @property
    def layout(self) -> ParallelLayout:
        """How the model is divided over ranks; ConfigError when the numbers do not fit together."""
        return ParallelLayout(self.tensor_parallel_size, self.expert_parallel_size, self.expert_dispatch)


def parse_engine_config(options: Mapping[str, object]) -> EngineConfig:
    """Validate untyped options (a YAML section, a command line); ConfigError names the setting."""
    try:
        return TypeAdapter(EngineConfig).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "engine"
        if first["type"] == "unexpected_keyword_argument":
            known = ", ".join(EngineConfig.__dataclass_fields__)
            raise ConfigError(f"unknown engine setting {name!r}; there are: {known}", name) from error
        raise ConfigError(f"engine setting {name}: {first['msg']}, got {first['input']!r}", name) from error


def resolve_device(config: EngineConfig) -> torch.device:
    """The device to run on; ConfigError when it is not there."""
    available = torch.cuda.is_available()
    if config.device == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(config.device)
    if device.type == "cuda" and not available:
        raise ConfigError(f"device {config.device!r}: no CUDA device is visible; use 'cpu' or 'auto'", "device")
    count = torch.cuda.device_count()
    if device.type == "cuda" and int(device.index or 0) >= count:
        raise ConfigError(f"device {config.device!r}: only {count} CUDA devices are visible", "device")
    return device


def resolve_dtype(config: EngineConfig, device: torch.device, stored: torch.dtype) -> torch.dtype:
    """The type to compute in; ``stored`` is the checkpoint's.

    ``"auto"`` on a CPU is float32 even where bfloat16 matrix products are fast: decisions at a threshold stay the same
    on every machine. Asking for bfloat16 is allowed; without AVX512-BF16 or AMX it is several times slower.
    """
    if config.dtype == "auto":
        if device.type == "cpu" and has_fast_bfloat16():
            logger.info("float32 on a CPU that multiplies bfloat16 in hardware; dtype bfloat16 takes less time")
        if device.type == "cpu" or stored not in DTYPES.values():
            return torch.float32
        return stored
    dtype = DTYPES[config.dtype]
    if device.type == "cpu" and dtype != torch.float32 and not has_fast_bfloat16():
        logger.warning("%s on this CPU, which has neither AVX512-BF16 nor AMX, is slower than float32", config.dtype)
    return dtype


def resolve_cuda_graphs(config: EngineConfig, device: torch.device) -> bool:
    """Whether steps are recorded; ConfigError when that is asked for where it cannot be."""
    reason = None
    if device.type != "cuda":
        reason = f"a CUDA device, not {device.type}"
    elif config.expert_dispatch == "all_to_all":
        reason = "expert_dispatch all_reduce: with all_to_all the host waits for the numbers of rows"
    if config.cuda_graphs == "on" and reason is not None:
        raise ConfigError(f"cuda_graphs 'on' needs {reason}; use 'auto' or 'off'", "cuda_graphs")
    return config.cuda_graphs != "off" and reason is None


def resolve_steps_per_look(config: EngineConfig, device: torch.device) -> int:
    """Most denoising steps that are taken before the host looks."""
    if config.steps_per_look is not None:
        return config.steps_per_look
    return 2 if device.type == "cuda" else 1


def check_quantization(config: EngineConfig, device: torch.device) -> None:
    """ConfigError where int8 products are not to be had; a warning where they are slow."""
    if config.quantization == "none":
        return
    if device.type != "cpu":
        raise ConfigError(
            f"quantization {config.quantization} runs on a CPU, not on {device}; use none", "quantization"
        )
    capabilities = torch.cpu.get_capabilities()
    if not any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        logger.warning("int8 on this CPU, which has neither VNNI nor AMX, is slower than float32")


def resolve_max_model_len(config: EngineConfig, max_position_embeddings: int) -> int:
    """Canvas positions per slot; ConfigError beyond the positions that the model knows."""
    if config.max_model_len is None:
        return min(max_position_embeddings, DEFAULT_MAX_MODEL_LEN)
    if config.max_model_len > max_position_embeddings:
        raise ConfigError(
            f"max_model_len {config.max_model_len} exceeds the model's {max_position_embeddings} positions",
            "max_model_len",
        )
    return config.max_model_len


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
