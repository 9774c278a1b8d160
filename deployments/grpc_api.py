"""Between the messages of protos/generation.proto and the service's jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from google.protobuf import json_format, struct_pb2

from deployments.callers import Caller, new_request_id
from deployments.config import AppConfig
from deployments.events import CanvasEvent, CommitEvent, DiffusionEvent, EditEvent, LengthEvent
from deployments.experiments.side_by_side import ComparedAnswer, comparison, total_usage
from deployments.jobs import DEFAULT_SUFFIX_TOKENS, MAX_SEGMENTS, JobFields, build_job
from deployments.messages import (
    ChatMessage,
    Gap,
    GapFill,
    Increment,
    Job,
    ModelCard,
    Prompt,
    PromptEcho,
    StrategyPart,
    StreamMode,
)
from deployments.service import Completion, JobIncrement, add_usage
from engine.errors import InvalidRequestError
from engine.outputs import FinishReason, StrategyUsed, Usage
from protos import generation_pb2 as pb

_STREAM_MODES: Mapping[int, StreamMode] = MappingProxyType(
    {
        pb.STREAM_MODE_UNSPECIFIED: "block",
        pb.STREAM_MODE_FINAL: "final",
        pb.STREAM_MODE_BLOCK: "block",
        pb.STREAM_MODE_STEP: "step",
        pb.STREAM_MODE_EVENTS: "events",
    }
)
_FINISH_REASONS: Mapping[FinishReason, pb.FinishReason.ValueType] = MappingProxyType(
    {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}
)


def job_of(request: pb.GenerateRequest, config: AppConfig, caller: Caller, *, stream: bool) -> Job:
    """Validate; InvalidRequestError names the field of the proto."""
    mode = _stream_mode(request.stream_mode)
    if request.suffix and mode in ("step", "events"):
        raise InvalidRequestError("stream_mode: the text before a suffix comes at once.", "stream_mode")
    fields = JobFields(
        prompts=[_prompt(request)],
        stream=mode if stream else "final",
        num_choices=request.n or 1,
        template=_before(request.suffix, request.sampling) if request.suffix else None,
        echo=request.echo,
        **_common(request, "gen", caller),
    )
    return build_job(fields, config)


def infill_job_of(request: pb.InfillRequest, config: AppConfig, caller: Caller) -> Job:
    """Validate; the text before the first gap is the prompt, the rest the template behind it."""
    if len(request.template) > MAX_SEGMENTS:
        raise InvalidRequestError(f"template: at most {MAX_SEGMENTS} segments are allowed.", "template")
    if not request.template or request.template[0].WhichOneof("kind") != "text":
        raise InvalidRequestError("template[0]: a template begins with a text, which is the prompt.", "template[0]")
    if request.sampling.HasField("max_tokens"):
        raise InvalidRequestError("sampling.max_tokens: the gaps have their own sizes.", "sampling.max_tokens")
    fields = JobFields(
        prompts=[Prompt(text=request.template[0].text)],
        template=tuple(_segment(index, part) for index, part in enumerate(request.template) if index),
        **_common(request, "infill", caller),
    )
    return build_job(fields, config)


def compare_job_of(request: pb.CompareRequest, config: AppConfig, caller: Caller) -> Job:
    """Validate; InvalidRequestError names the field of the proto."""
    fields = JobFields(prompts=[_prompt(request)], **_common(request, "cmp", caller))
    return comparison(fields, [_strategy(one) for one in request.strategies], config)


def compare_response_of(job: Job, answers: Sequence[ComparedAnswer]) -> pb.CompareResponse:
    """The answers side by side."""
    return pb.CompareResponse(
        request_id=job.request_id,
        model=job.model,
        answers=[
            pb.ComparedAnswer(
                index=index,
                strategy=_struct(answer.strategy),
                text=answer.text,
                finish_reason=_finish_reason(answer.finish_reason),
                usage=usage_of(answer.usage),
                first_s=answer.first_s or answer.total_s,
                total_s=answer.total_s,
            )
            for index, answer in enumerate(answers)
        ],
        usage=usage_of(total_usage(answers)),
    )


def response_of(job: Job, completions: Sequence[Completion]) -> pb.GenerateResponse:
    """The whole answer."""
    choices = [
        _gap_choice(index, one.echo, one.gaps)
        if one.gaps is not None
        else _choice(index, one.echo, one.text, one.token_ids, one.logprobs, one.token_bytes, one.finish_reason)
        for index, one in enumerate(completions)
    ]
    usage = add_usage([one.usage for one in completions], job.num_choices)
    return pb.GenerateResponse(request_id=job.request_id, model=job.model, choices=choices, usage=usage_of(usage))


def infill_response_of(job: Job, request: pb.InfillRequest, completion: Completion) -> pb.InfillResponse:
    """The filled template."""
    gaps = completion.gaps or ()
    fills = iter(gaps)
    parts = (part.text if part.WhichOneof("kind") == "text" else next(fills).text for part in request.template)
    return pb.InfillResponse(
        request_id=job.request_id,
        model=job.model,
        text="".join(parts),
        gaps=[
            pb.FilledGap(
                text=gap.text,
                token_ids=gap.token_ids,
                finish_reason=_finish_reason(gap.finish_reason),
                logprobs=gap.logprobs if request.logprobs else (),
                token_texts=_token_texts(gap.token_bytes) if request.logprobs else (),
            )
            for gap in gaps
        ],
        usage=usage_of(completion.usage),
    )


def chunk_of(job: Job, item: JobIncrement) -> pb.GenerateChunk | None:
    """A chunk of the stream; None where the increment says nothing."""
    increment, output = item.increment, item.increment.output
    if increment.gaps is not None:
        delta = _gap_choice(item.index, increment.echo, increment.gaps)
    elif output.text or output.token_ids or output.finished or output.canvas or increment.echo:
        delta = _choice(
            item.index,
            increment.echo,
            output.text,
            output.token_ids,
            output.logprobs,
            increment.token_bytes,
            output.finish_reason,
        )
    else:
        return None
    return pb.GenerateChunk(
        request_id=job.request_id,
        model=job.model,
        delta=delta,
        canvas=_canvas_of(increment) if job.calls[item.index].stream == "step" else None,
        events=[event_of(event) for event in increment.events],
        forwards=output.usage.forwards if increment.events else 0,
    )


def event_of(event: DiffusionEvent) -> pb.DiffusionEvent:
    """An event of the diffusion stream."""
    if isinstance(event, LengthEvent):
        return pb.DiffusionEvent(length=pb.LengthEvent(length=event.length))
    if isinstance(event, CanvasEvent):
        return pb.DiffusionEvent(
            canvas=pb.CanvasEvent(
                step=event.step,
                positions=event.positions,
                token_ids=event.token_ids,
                texts=event.texts,
                probabilities=event.probabilities,
            )
        )
    if isinstance(event, EditEvent):
        return pb.DiffusionEvent(
            edit=pb.EditEvent(
                step=event.step,
                position=event.position,
                old_id=event.old_id,
                old_text=event.old_text,
                new_id=event.new_id,
                new_text=event.new_text,
                probability=event.probability,
            )
        )
    assert isinstance(event, CommitEvent)
    return pb.DiffusionEvent(
        commit=pb.CommitEvent(
            step=event.step,
            start=event.start,
            end=event.end,
            token_ids=event.token_ids,
            text=event.text,
            logprobs=event.logprobs,
        )
    )


def usage_chunk(job: Job, usage: Usage) -> pb.GenerateChunk:
    """The last chunk of a stream."""
    return pb.GenerateChunk(request_id=job.request_id, model=job.model, usage=usage_of(usage))


def usage_of(usage: Usage) -> pb.Usage:
    """The cost of a request."""
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        denoising_steps=usage.denoising_steps,
        forwards=usage.forwards,
        positions_computed=usage.positions_computed,
        tokens_per_forward=usage.tokens_per_forward,
        strategy=_strategy_used(usage.strategy) if usage.strategy else None,
        cached_tokens=usage.cached_tokens,
    )


def model_of(card: ModelCard, *, is_default: bool) -> pb.Model:
    """A served model."""
    return pb.Model(
        id=card.id,
        architecture=card.architecture,
        attention=card.attention,
        block_length=card.block_length,
        max_model_len=card.max_model_len,
        is_default=is_default,
        description=card.description,
        default_strategy=_struct(card.default_strategy),
        presets={goal: _struct(options) for goal, options in card.presets.items()},
    )


def strategy_of(part: StrategyPart) -> pb.StrategyPart:
    """A preset, decoder, cache policy or transform."""
    return json_format.ParseDict(asdict(part), pb.StrategyPart())


def _strategy_used(strategy: StrategyUsed) -> pb.StrategyUsed:
    return pb.StrategyUsed(
        name=strategy.name,
        version=strategy.version,
        options=_struct(strategy.options),
        chosen_by=strategy.chosen_by,
        adjusted=strategy.adjusted,
        reason=strategy.reason,
    )


def _common(
    request: pb.GenerateRequest | pb.InfillRequest | pb.CompareRequest, prefix: str, caller: Caller
) -> dict[str, Any]:
    """JobFields by name that all requests fill. The message's own session wins over the metadata's."""
    own: dict[str, Any] = {}
    if not isinstance(request, pb.CompareRequest):
        own = {"strategy": _strategy(request.strategy), "logprobs": request.logprobs}
    return own | {
        "request_id": request.request_id or new_request_id(prefix),
        "model": request.model or None,
        "sampling": _sampling(request.sampling),
        "priority": request.priority,
        "timeout_ms": request.timeout_ms or None,
        "user": request.user,
        "caller": replace(caller, session_id=request.session_id or caller.session_id),
    }


def _segment(index: int, part: pb.Segment) -> str | Gap:
    if part.WhichOneof("kind") == "text":
        return part.text
    size = part.gap.WhichOneof("size")
    tokens = getattr(part.gap, size) if size else 0
    if tokens < 1:
        field = f"template[{index}].gap"
        raise InvalidRequestError(f"{field}: set tokens or max_tokens to at least 1.", field)
    return Gap(tokens=tokens, may_end_early=size == "max_tokens")


def _before(suffix: str, sampling: pb.Sampling) -> tuple[str | Gap, ...]:
    """The template of a completion that ends where its suffix begins."""
    max_tokens = sampling.max_tokens if sampling.HasField("max_tokens") else DEFAULT_SUFFIX_TOKENS
    if max_tokens < 1:
        raise InvalidRequestError("max_tokens: at least 1 is needed, got 0.", "max_tokens")
    return (Gap(tokens=max_tokens, may_end_early=True), suffix)


def _choice(
    index: int,
    echo: PromptEcho | None,
    text: str,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    token_bytes: Sequence[bytes] | None,
    finish_reason: FinishReason | None,
) -> pb.Choice:
    return pb.Choice(
        index=index,
        text=(echo.text if echo else "") + text,
        token_ids=token_ids,
        finish_reason=_finish_reason(finish_reason),
        logprobs=logprobs if token_bytes else (),
        token_texts=_token_texts(token_bytes or ()),
    )


def _gap_choice(index: int, echo: PromptEcho | None, gaps: Sequence[GapFill]) -> pb.Choice:
    """The completion between a prompt and a suffix."""
    (gap,) = gaps
    return _choice(index, echo, gap.text, gap.token_ids, gap.logprobs, gap.token_bytes, gap.finish_reason)


def _token_texts(token_bytes: Sequence[bytes]) -> list[str]:
    return [token.decode("utf-8", errors="replace") for token in token_bytes]


def _prompt(request: pb.GenerateRequest | pb.CompareRequest) -> Prompt:
    kind = request.WhichOneof("prompt")
    if kind == "text":
        return Prompt(text=request.text)
    if kind == "token_ids":
        return Prompt(token_ids=tuple(request.token_ids.ids))
    if kind == "chat":
        return Prompt(messages=tuple(ChatMessage(one.role, one.content) for one in request.chat.messages))
    raise InvalidRequestError("The request has no prompt; set one of: text, token_ids, chat.", "prompt")


def _sampling(sampling: pb.Sampling) -> dict[str, object]:
    """SamplingParams by name. Only fields that the client set are listed, so unset scalars keep their defaults."""
    given = {field.name: value for field, value in sampling.ListFields()}
    return given | {
        "stop": tuple(sampling.stop),
        "stop_token_ids": frozenset(sampling.stop_token_ids),
        "logit_bias": dict(sampling.logit_bias),
    }


def _strategy(strategy: pb.Strategy) -> dict[str, object]:
    """Options by name. A Struct's numbers are all doubles: whole ones become integers again."""
    fields = ("preset", "decoder", "cache", "block_length")
    named = {name: getattr(strategy, name) for name in fields}
    options = {name: value for name, value in named.items() if value}
    for name, value in json_format.MessageToDict(strategy.params).items():
        if name in named:
            raise InvalidRequestError(f"strategy.params: {name} is a field of Strategy.", f"strategy.params.{name}")
        options[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return options


def _stream_mode(mode: int) -> StreamMode:
    if mode not in _STREAM_MODES:
        raise InvalidRequestError(f"stream_mode: {mode} is not a value of StreamMode.", "stream_mode")
    return _STREAM_MODES[mode]


def _finish_reason(reason: FinishReason | None) -> pb.FinishReason.ValueType:
    return pb.FINISH_REASON_UNSPECIFIED if reason is None else _FINISH_REASONS[reason]


def _canvas_of(increment: Increment) -> pb.Canvas | None:
    canvas = increment.output.canvas
    if canvas is None:
        return None
    return pb.Canvas(token_ids=canvas.token_ids, texts=increment.canvas_texts or (), revealed_at=canvas.revealed_at)


def _struct(values: Mapping[str, object]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(values), struct_pb2.Struct())
