"""The diffusion event stream: what a denoising step has changed, in place of the whole canvas.

Positions count from the start of the completion. A client that applies the events in order holds the canvas:
``length`` makes room, ``canvas`` fills positions, ``edit`` changes or masks a filled one, ``commit`` says that a range
is final. What lies behind the end of the text is never committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.outputs import CanvasStep, RequestOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthEvent:
    """The canvas of the completion has ``length`` positions: the first event, and again whenever it grows."""

    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasEvent:
    """Masked ``positions`` were filled, provisionally, with ``token_ids``; ``texts`` are the tokens' own texts,
    ``probabilities`` what the model gave them at this step (nan: given, or moved by an editing decoder)."""

    step: int
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditEvent:
    """A filled position changed. ``new_id`` is None, and its text empty, where it was masked again; ``probability`` is
    what the model gave the new token (nan: masked, or moved)."""

    step: int
    position: int
    old_id: int
    old_text: str
    new_id: int | None
    new_text: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitEvent:
    """``[start, end)`` is final. ``text`` is exactly what the plain stream adds to the answer at this step; it may lag
    behind ``token_ids`` by an unfinished character."""

    step: int
    start: int
    end: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]


DiffusionEvent = LengthEvent | CanvasEvent | EditEvent | CommitEvent
TokenText = Callable[[int], str]


@dataclass(slots=True)
class EventDiffer:
    """Owns the last canvas of one request and turns each increment into events, in the order in which a client applies
    them. ``limit`` is the longest completion: a block may reach beyond it, a client's canvas does not. ``committed``
    tokens of the completion were handed out before, by an engine that was lost."""

    token_text: TokenText
    mask_token_id: int
    limit: int
    committed: int = 0
    _tokens: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _filled: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def events(self, output: RequestOutput) -> tuple[DiffusionEvent, ...]:
        """What is new since the last increment."""
        step = output.usage.denoising_steps
        found = list(self._canvas_events(output.canvas, step)) if output.canvas is not None else []
        if output.token_ids or output.text:
            found.append(self._commit(output, step))
        return tuple(found)

    def _canvas_events(self, canvas: CanvasStep, step: int) -> Iterator[DiffusionEvent]:
        tokens = np.asarray(canvas.token_ids[: self.limit], np.int64)
        filled = tokens != self.mask_token_id
        if len(tokens) > len(self._tokens):
            yield LengthEvent(length=len(tokens))
            grown = len(tokens) - len(self._tokens)
            self._tokens, self._filled = np.pad(self._tokens, (0, grown)), np.pad(self._filled, (0, grown))
        fresh = np.flatnonzero(filled & ~self._filled)
        if len(fresh):
            token_ids = tuple(tokens[fresh].tolist())
            yield CanvasEvent(
                step=step,
                positions=tuple(fresh.tolist()),
                token_ids=token_ids,
                texts=tuple(map(self.token_text, token_ids)),
                probabilities=tuple(canvas.probabilities[position] for position in fresh),
            )
        for position in np.flatnonzero(self._filled & ((tokens != self._tokens) | ~filled)).tolist():
            new_id = int(tokens[position]) if filled[position] else None
            yield self._edit(step, position, new_id, canvas.probabilities[position])
        self._tokens, self._filled = tokens, filled

    def _edit(self, step: int, position: int, new_id: int | None, probability: float) -> EditEvent:
        old_id = int(self._tokens[position])
        new_text = "" if new_id is None else self.token_text(new_id)
        return EditEvent(
            step=step,
            position=position,
            old_id=old_id,
            old_text=self.token_text(old_id),
            new_id=new_id,
            new_text=new_text,
            probability=probability,
        )

    def _commit(self, output: RequestOutput, step: int) -> CommitEvent:
        start, self.committed = self.committed, self.committed + len(output.token_ids)
        return CommitEvent(
            step=step,
            start=start,
            end=self.committed,
            token_ids=output.token_ids,
            text=output.text,
            logprobs=output.logprobs,
        )
