"""Requests: as they come in, and as the engine keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal

from engine.sampling_params import SamplingParams
from engine.strategy import Strategy

StreamMode = Literal["final", "block", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What a caller asks for.

    ``prompt`` is text, in which the text of a special token is only text, or token ids. ``strategy`` None is the
    model's default. A smaller ``priority`` runs first. ``stream`` says how often increments come: once at the end,
    after each finished block, or after each denoising step together with the canvas.
    """

    request_id: str
    prompt: str | SequenceOf[int]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    strategy: Strategy | None = None
    priority: int = 0
    stream: StreamMode = "block"


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A validated request on its way through the engine. ``slot`` is -1 while it waits; ``guide_slot`` is -1 unless
    it runs with classifier-free guidance; ``num_emitted`` tokens of its completion have been handed out."""

    request: GenerationRequest
    prompt_ids: SequenceOf[int]
    strategy: Strategy
    stop_ids: SequenceOf[int]
    sampling_knobs: Mapping[str, object]
    canvas_len: int
    arrival: int
    slot: int = -1
    guide_slot: int = -1
    num_emitted: int = 0

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_slots(self) -> int:
        """Slots it takes: two with guidance."""
        return 2 if self.strategy.cfg_scale else 1
