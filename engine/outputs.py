"""What a caller gets back: increments of a running request and the final result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.errors import LacunaError

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyUsed:
    """How a request was decoded: the preset's name and version (the decoder's name and 0 where none was named), and the
    options that give the same strategy again. A service that chooses says by whom the strategy was ``chosen_by``,
    whether it was ``adjusted`` to the load, and the ``reason``."""

    name: str
    version: int
    options: Mapping[str, object]
    chosen_by: str = ""
    adjusted: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request has cost so far. ``strategy`` is set when it has ended.

    ``forwards`` counts passes of the network in which the request took part (NFE), ``denoising_steps`` those that
    decided positions; ``positions_computed`` the query positions fed to the network for it.
    ``cached_tokens`` of the prompt were not computed, because their K/V were known from other requests.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    forwards: int = 0
    denoising_steps: int = 0
    positions_computed: int = 0
    cached_tokens: int = 0
    strategy: StrategyUsed | None = None

    @property
    def tokens_per_forward(self) -> float:
        """TPF: completion tokens per forward; 0 before the first forward."""
        return self.completion_tokens / self.forwards if self.forwards else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasStep:
    """The generated part of a canvas after a denoising step: token ids with the mask id where nothing is decided, the
    denoising step (1-based, 0 = still masked) that filled each position, and the probability that the model gave its
    token at that step (nan: masked, given, or moved by an editing decoder)."""

    token_ids: tuple[int, ...]
    revealed_at: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutput:
    """One increment of a request; the last one has ``finish_reason`` set.

    ``text`` and ``token_ids`` are what is new since the previous increment (everything, for ``LLMEngine.generate``);
    increments concatenate to the completion, which never contains a mask, a stop id or a stop string.
    ``stop_reason`` is the stop id or stop string that ended it. ``canvas`` is set when the request asked for steps.
    ``logprobs`` holds, for each of ``token_ids``, the natural logarithm of the probability that the model gave the
    token at the denoising step that filled its place; nan for given tokens and those that an editing decoder moved.
    ``pending_ids`` are tokens that are final but not shown, because their text may begin a stop string. ``error`` says
    why the engine gave the request up.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    usage: Usage = Usage()
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    canvas: CanvasStep | None = None
    logprobs: tuple[float, ...] = ()
    pending_ids: tuple[int, ...] = ()
    error: LacunaError | None = None

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None
