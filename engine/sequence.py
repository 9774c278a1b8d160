"""Requests: as they come in, and as the engine keeps them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal

from engine.cache.policy import FloatArray, IntArray
from engine.sampling_params import SamplingParams
from engine.strategy import Strategy
from engine.telemetry import SequenceTrace

StreamMode = Literal["final", "block", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What a caller asks for.

    ``prompt`` is text, in which the text of a special token is only text, or token ids. ``strategy`` None is the
    model's default. A smaller ``priority`` runs first. An answer later than ``timeout_s`` is of no use (None: it always
    is). ``stream`` says how often increments come: once at the end, after each finished block, or after each denoising
    step together with the canvas.

    ``template`` (infilling) is the completion with None at free positions: its length takes the place of
    ``max_tokens``, the fixed tokens stay, and no stop id ends it. ``generated`` (replay) is the beginning of the
    completion as another engine has decided it: the engine goes on behind its whole blocks and decides a begun one
    again. Of these tokens ``num_shown`` (None: all) have been handed out; outputs hold what comes after them. At most
    one of template and generated. ``traceparent`` and ``tracestate`` are W3C's, of the span that this is a part of.
    K/V of prompts are shared only among requests with the same ``cache_salt``.
    """

    request_id: str
    prompt: str | SequenceOf[int]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    strategy: Strategy | None = None
    priority: int = 0
    timeout_s: float | None = None
    stream: StreamMode = "block"
    template: SequenceOf[int | None] | None = None
    generated: SequenceOf[int] = ()
    num_shown: int | None = None
    cache_salt: str = ""
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def shown(self) -> SequenceOf[int]:
        """The generated tokens that have been handed out."""
        return self.generated if self.num_shown is None else self.generated[: self.num_shown]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """What a preempted sequence takes with it: what it has cost, and of its generated positions, up to the end of the
    canvas, when they were filled and how probable their tokens were (0 and nan where nothing stays)."""

    forwards: int
    denoising_steps: int
    positions: int
    reused: int
    revealed_at: IntArray
    probability: FloatArray


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A validated request on its way through the engine. ``completion_ids`` is the completion as it begins, with the
    mask id where nothing is decided. ``transform_knobs`` are those of the transforms in use. ``slot`` is -1 while it
    waits; ``guide_slot`` is -1 unless it runs with classifier-free guidance; ``num_emitted`` tokens of its completion
    have been handed out. It was queued at ``queued_s`` and is of no use after ``deadline_s`` of ``time.perf_counter``;
    it came at ``arrived_ns`` of the system's clock; ``trace`` is None where nobody records it. The scheduler predicts
    its forwards and positions. ``repeatable``: decided again from the beginning of a block it gets the same tokens, so
    it may be preempted; ``suspended`` is what it then takes with it until it runs again. ``prefix_keys`` are those of
    its given blocks, where their K/V may be shared."""

    request: GenerationRequest
    prompt_ids: SequenceOf[int]
    completion_ids: SequenceOf[int]
    strategy: Strategy
    stop_ids: SequenceOf[int]
    sampling_knobs: Mapping[str, object]
    canvas_len: int
    arrival: int
    transform_knobs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    slot: int = -1
    guide_slot: int = -1
    num_emitted: int = 0
    queued_s: float = 0.0
    deadline_s: float = math.inf
    predicted_steps: float = 0.0
    predicted_positions: int = 0
    repeatable: bool = True
    prefix_keys: SequenceOf[bytes] = ()
    num_preemptions: int = 0
    suspended: Suspension | None = None
    arrived_ns: int = field(default_factory=time.time_ns)
    trace: SequenceTrace | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_slots(self) -> int:
        """Slots it takes: two with guidance."""
        return 2 if self.strategy.cfg_scale else 1
