"""Bodies of OpenAI's answers. ``usage.diffusion`` and a choice's ``diffusion`` are additions of this server."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from deployments.events import CanvasEvent, CommitEvent, DiffusionEvent, EditEvent, LengthEvent
from deployments.experiments.outcome import Assignment
from deployments.messages import GapFill, Increment, Job, ModelCard, PromptEcho
from deployments.openai_api.logprobs import CompletionLogprobs, TokenRun, chat_logprobs, known
from deployments.service import Completion, JobIncrement, add_usage
from engine.outputs import Usage

OWNER = "lacuna"
EVENT_TYPES: Mapping[type, str] = {
    LengthEvent: "length",
    CanvasEvent: "canvas",
    EditEvent: "edit",
    CommitEvent: "commit",
}


def usage_object(usage: Usage, experiment: Assignment | None = None) -> dict[str, object]:
    """OpenAI's usage, what the diffusion cost, the strategy that was used, and the request's place in an experiment."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "diffusion": {
            "denoising_steps": usage.denoising_steps,
            "forwards": usage.forwards,
            "positions_computed": usage.positions_computed,
            "tokens_per_forward": round(usage.tokens_per_forward, 4),
            **({"strategy": asdict(usage.strategy)} if usage.strategy else {}),
            **({} if experiment is None else {"experiment": experiment.report()}),
        },
    }


def event_object(event: DiffusionEvent) -> dict[str, object]:
    """An event of the diffusion stream; its ``type`` names the other fields. JSON has no nan: it becomes null."""
    fields = asdict(event)
    if isinstance(event, CommitEvent):
        fields["logprobs"] = [known(logprob) for logprob in event.logprobs]
    elif isinstance(event, CanvasEvent):
        fields["probabilities"] = [_rounded(one) for one in event.probabilities]
    elif isinstance(event, EditEvent):
        fields["probability"] = _rounded(event.probability)
    return {"type": EVENT_TYPES[type(event)], **fields}


def _rounded(probability: float) -> float | None:
    """Single precision holds no more digits."""
    return known(round(probability, 6))


def diffusion_object(increment: Increment) -> dict[str, object] | None:
    """A choice's ``diffusion``: the events of a denoising step with the forwards so far, or the canvas with one entry
    per generated position."""
    if increment.events:
        return {
            "events": [event_object(event) for event in increment.events],
            "forwards": increment.output.usage.forwards,
        }
    canvas = increment.output.canvas
    if canvas is None:
        return None
    return {
        "canvas": {
            "token_ids": list(canvas.token_ids),
            "texts": list(increment.canvas_texts or ()),
            "revealed_at": list(canvas.revealed_at),
        }
    }


def model_object(card: ModelCard, created: int, *, is_default: bool) -> dict[str, object]:
    """OpenAI's model object with the facts of the model under ``lacuna``."""
    return {
        "id": card.id,
        "object": "model",
        "created": created,
        "owned_by": OWNER,
        "lacuna": {
            "description": card.description,
            "architecture": card.architecture,
            "attention": card.attention,
            "block_length": card.block_length,
            "max_model_len": card.max_model_len,
            "default_strategy": dict(card.default_strategy),
            "presets": {goal: dict(options) for goal, options in card.presets.items()},
            "is_default": is_default,
        },
    }


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a choice's text with its tokens."""

    text: str
    token_bytes: Sequence[bytes]
    logprobs: Sequence[float]
    finish_reason: str | None


@dataclass(slots=True, kw_only=True)
class AnswerFormat(ABC):
    """How the answers of one request look. ``num_top`` is None where no logprobs were asked for."""

    job: Job
    fingerprint: str = ""
    num_top: int | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    experiment: Assignment | None = None

    @abstractmethod
    def whole(self, completions: Sequence[Completion]) -> dict[str, object]:
        """The body without streaming."""

    @abstractmethod
    def chunks(self, item: JobIncrement, *, is_first: bool) -> list[dict[str, object]]:
        """Chunks of one increment; none where it says nothing."""

    @abstractmethod
    def usage_chunk(self, usage: Usage) -> dict[str, object]:
        """The last chunk, with ``stream_options.include_usage``."""

    def _head(self, kind: str) -> dict[str, object]:
        return {
            "id": self.job.request_id,
            "object": kind,
            "created": self.created,
            "model": self.job.model,
            "system_fingerprint": self.fingerprint,
        }

    def _usage(self, completions: Sequence[Completion]) -> dict[str, object]:
        usage = add_usage([one.usage for one in completions], self.job.num_choices)
        return usage_object(usage, self.experiment)


@dataclass(slots=True, kw_only=True)
class CompletionFormat(AnswerFormat):
    """Answers of /v1/completions."""

    _offsets: dict[int, CompletionLogprobs] = field(default_factory=dict)

    def whole(self, completions: Sequence[Completion]) -> dict[str, object]:
        choices = [self._whole_choice(index, one) for index, one in enumerate(completions)]
        return {**self._head("text_completion"), "choices": choices, "usage": self._usage(completions)}

    def chunks(self, item: JobIncrement, *, is_first: bool) -> list[dict[str, object]]:
        increment, output = item.increment, item.increment.output
        diffusion = diffusion_object(increment)
        piece = (
            _between(increment.gaps)
            if increment.gaps is not None
            else _Piece(output.text, increment.token_bytes or (), output.logprobs, output.finish_reason)
        )
        if not (piece.text or increment.echo or output.finished or diffusion):
            return []
        choice = self._choice(item.index, increment.echo, piece)
        return [self._head("text_completion") | {"choices": [choice | _optional("diffusion", diffusion)]}]

    def usage_chunk(self, usage: Usage) -> dict[str, object]:
        return {**self._head("text_completion"), "choices": [], "usage": usage_object(usage, self.experiment)}

    def _whole_choice(self, index: int, one: Completion) -> dict[str, object]:
        if one.gaps is not None:
            return self._choice(index, one.echo, _between(one.gaps))
        return self._choice(index, one.echo, _Piece(one.text, one.token_bytes, one.logprobs, one.finish_reason))

    def _choice(self, index: int, echo: PromptEcho | None, piece: _Piece) -> dict[str, object]:
        return {
            "index": index,
            "text": (echo.text if echo else "") + piece.text,
            "logprobs": None if self.num_top is None else self._logprobs(index, self.num_top, echo, piece),
            "finish_reason": piece.finish_reason,
        }

    def _logprobs(self, index: int, num_top: int, echo: PromptEcho | None, piece: _Piece) -> dict[str, object]:
        runs = [TokenRun(token_bytes=echo.token_bytes, logprobs=None)] if echo else []
        runs.append(TokenRun(token_bytes=piece.token_bytes, logprobs=piece.logprobs))
        return self._offsets.setdefault(index, CompletionLogprobs(num_top)).add(runs)


@dataclass(slots=True, kw_only=True)
class ChatFormat(AnswerFormat):
    """Answers of /v1/chat/completions."""

    def whole(self, completions: Sequence[Completion]) -> dict[str, object]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": one.text, "refusal": None},
                "logprobs": self._logprobs(one.token_bytes, one.logprobs),
                "finish_reason": one.finish_reason,
            }
            for index, one in enumerate(completions)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage(completions)}

    def chunks(self, item: JobIncrement, *, is_first: bool) -> list[dict[str, object]]:
        """The role before a choice's first text, its finish reason after its last."""
        increment, output = item.increment, item.increment.output
        diffusion = diffusion_object(increment)
        chunks = []
        if is_first:
            chunks.append(self._chunk(item.index, {"role": "assistant", "content": ""}))
        if output.text or output.token_ids or diffusion:
            delta = {"content": output.text} if output.text else {}
            logprobs = self._logprobs(increment.token_bytes or (), output.logprobs)
            if delta or diffusion or logprobs:
                chunks.append(self._chunk(item.index, delta, logprobs=logprobs, diffusion=diffusion))
        if output.finished:
            chunks.append(self._chunk(item.index, {}, output.finish_reason))
        return chunks

    def usage_chunk(self, usage: Usage) -> dict[str, object]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_object(usage, self.experiment)}

    def _logprobs(self, token_bytes: Sequence[bytes], logprobs: Sequence[float]) -> dict[str, object] | None:
        return None if self.num_top is None else chat_logprobs(token_bytes, logprobs, self.num_top)

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, object],
        finish_reason: str | None = None,
        *,
        logprobs: dict[str, object] | None = None,
        diffusion: dict[str, object] | None = None,
    ) -> dict[str, object]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        head = self._head("chat.completion.chunk")
        return {**head, "choices": [choice | _optional("diffusion", diffusion)]}


def _between(gaps: Sequence[GapFill]) -> _Piece:
    """The completion between a prompt and a suffix: the one gap."""
    (gap,) = gaps
    return _Piece(gap.text, gap.token_bytes, gap.logprobs, gap.finish_reason)


def _optional(name: str, value: object) -> dict[str, object]:
    return {} if value is None else {name: value}


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillFormat:
    """Answers of /v1/infill. ``template`` holds the given texts, and None where a gap is."""

    job: Job
    template: Sequence[str | None]
    fingerprint: str = ""
    with_logprobs: bool = False
    experiment: Assignment | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, completion: Completion) -> dict[str, object]:
        """The body."""
        gaps = completion.gaps or ()
        fills = iter(gaps)
        text = "".join(next(fills).text if part is None else part for part in self.template)
        return {
            "id": self.job.request_id,
            "object": "infill",
            "created": self.created,
            "model": self.job.model,
            "system_fingerprint": self.fingerprint,
            "text": text,
            "gaps": [self._gap(index, gap) for index, gap in enumerate(gaps)],
            "usage": usage_object(completion.usage, self.experiment),
        }

    def _gap(self, index: int, gap: GapFill) -> dict[str, object]:
        return {
            "index": index,
            "text": gap.text,
            "token_ids": list(gap.token_ids),
            "finish_reason": gap.finish_reason,
            "logprobs": chat_logprobs(gap.token_bytes, gap.logprobs, 0) if self.with_logprobs else None,
        }
