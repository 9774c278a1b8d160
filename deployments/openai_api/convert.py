"""From OpenAI's bodies to jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.callers import Caller, new_request_id
from deployments.config import AppConfig
from deployments.jobs import DEFAULT_SUFFIX_TOKENS, STREAM_MODES, JobFields, build_job, check_unicode
from deployments.messages import ChatMessage, Gap, Job, Prompt, StreamMode
from deployments.openai_api.requests import (
    ChatBody,
    CompletionBody,
    GapBody,
    GapSize,
    GenerationBody,
    InfillBody,
    RequestBody,
)
from engine.errors import InvalidRequestError

MAX_ID_DIGITS = 18


def completion_job(body: CompletionBody, config: AppConfig, caller: Caller) -> Job:
    """POST /v1/completions."""
    _check_top(body.logprobs or 0, "logprobs", body)
    return build_job(
        _generation(
            body,
            "cmpl",
            caller,
            prompts=_prompts(body.prompt),
            max_tokens=body.max_tokens,
            template=_before(body.suffix, body) if body.suffix else None,
            logprobs=body.logprobs is not None,
            echo=bool(body.echo),
        ),
        config,
    )


def chat_job(body: ChatBody, config: AppConfig, caller: Caller) -> Job:
    """POST /v1/chat/completions."""
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError("top_logprobs: needs logprobs: true.", "top_logprobs")
    _check_top(body.top_logprobs or 0, "top_logprobs", body)
    messages = tuple(ChatMessage(message.role, message.text()) for message in body.messages)
    return build_job(
        _generation(
            body,
            "chatcmpl",
            caller,
            prompts=[Prompt(messages=messages)],
            max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
            logprobs=bool(body.logprobs),
        ),
        config,
    )


def infill_job(body: InfillBody, config: AppConfig, caller: Caller) -> Job:
    """POST /v1/infill: the text before the first gap is the prompt, the rest the template behind it."""
    first, *rest = body.template
    if not isinstance(first, str):
        raise InvalidRequestError("template[0]: a template begins with a text, which is the prompt.", "template[0]")
    strategy = dict(body.diffusion or {})
    if "stream" in strategy:
        raise InvalidRequestError("diffusion.stream: /v1/infill answers at once.", "diffusion.stream")
    fields = JobFields(
        request_id=new_request_id("infill"),
        prompts=[Prompt(text=first)],
        template=tuple(part if isinstance(part, str) else gap_of(part) for part in rest),
        strategy=strategy,
        logprobs=bool(body.logprobs),
        caller=caller,
        **_common(body),
    )
    return build_job(fields, config)


def gap_of(body: GapBody) -> Gap:
    """A gap of a number of tokens, or of at most so many."""
    size = body.gap if isinstance(body.gap, GapSize) else GapSize(tokens=body.gap)
    if size.tokens is not None:
        return Gap(tokens=size.tokens)
    assert size.max_tokens is not None
    return Gap(tokens=size.max_tokens, may_end_early=True)


def invalid_body(findings: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """Pydantic's findings as one error about the first field; the alternatives of a field are joined with "or"."""
    first = _path(findings[0]["loc"])
    messages = [item["msg"].removeprefix("Value error, ") for item in findings if _path(item["loc"]) == first]
    message = " or ".join(dict.fromkeys(messages))
    if first:
        return InvalidRequestError(f"{first}: {message}.", first)
    name, separator, _ = message.partition(": ")  # our own validators write "field: what is wrong"
    return InvalidRequestError(f"{message}.", name if separator and name.isidentifier() else None)


def _path(loc: Sequence[int | str]) -> str:
    """``messages[0].content``, without the tags that pydantic adds for the alternatives of a field."""
    parts = [part for part in loc if isinstance(part, int) or not (part == "str" or part.startswith("list["))]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def _generation(body: GenerationBody, prefix: str, caller: Caller, max_tokens: int | None, **fields: Any) -> JobFields:
    stream, strategy = _split_diffusion(body)
    common = _common(body)
    return JobFields(
        request_id=new_request_id(prefix),
        strategy=strategy,
        stream=stream,
        num_choices=body.n or 1,
        caller=caller,
        **(common | {"sampling": common["sampling"] | {"max_tokens": max_tokens}} | fields),
    )


def _common(body: RequestBody) -> dict[str, Any]:
    """JobFields by name that every body can fill."""
    return {
        "model": body.model,
        "sampling": {
            "temperature": body.temperature,
            "top_k": body.top_k,
            "top_p": body.top_p,
            "seed": body.seed,
            "stop": (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
            "stop_token_ids": frozenset(body.stop_token_ids or ()),
            "ignore_eos": body.ignore_eos,
            "logit_bias": _biases(body.logit_bias or {}),
        },
        "priority": body.priority or 0,
        "timeout_ms": body.timeout_ms,
        "user": body.user or body.safety_identifier,
        "cache_salt": body.cache_salt,
    }


def _biases(given: Mapping[str, float]) -> dict[int, float]:
    """JSON's keys are texts."""
    for key in given:
        if not (key.isascii() and key.isdigit() and len(key) <= MAX_ID_DIGITS):
            raise InvalidRequestError(f"logit_bias: {key!r} is no token id.", "logit_bias")
    return {int(key): bias for key, bias in given.items()}


def _before(suffix: str, body: CompletionBody) -> tuple[str | Gap, ...]:
    """The template of a completion that ends where its suffix begins."""
    check_unicode(suffix, "suffix")
    if (body.diffusion or {}).get("stream") not in (None, "final", "block"):
        raise InvalidRequestError("diffusion.stream: the text before a suffix comes at once.", "diffusion.stream")
    max_tokens = DEFAULT_SUFFIX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens < 1:
        raise InvalidRequestError(f"max_tokens: at least 1 is needed, got {max_tokens}.", "max_tokens")
    return (Gap(tokens=max_tokens, may_end_early=True), suffix)


def _check_top(num_top: int, field: str, body: RequestBody) -> None:
    """Only the chosen token's probability outlives a step; drawn tokens need not be the most probable ones."""
    if num_top > 1:
        raise InvalidRequestError(
            f"{field}: at most 1 is allowed: alternatives are not kept once a step has decided.", field
        )
    if num_top == 1 and body.temperature:
        raise InvalidRequestError(
            f"{field}: 1 needs temperature 0, where the chosen token is the most probable one; use 0.", field
        )


def _split_diffusion(body: GenerationBody) -> tuple[StreamMode, dict[str, object]]:
    """``diffusion`` without the stream mode, which is not a matter of the strategy."""
    strategy = dict(body.diffusion or {})
    mode = strategy.pop("stream", None)
    if mode is not None and mode not in STREAM_MODES:
        raise InvalidRequestError(
            f"diffusion.stream: one of {', '.join(STREAM_MODES)} is allowed, got {mode!r}.", "diffusion.stream"
        )
    if not body.stream:
        if mode not in (None, "final"):
            raise InvalidRequestError(f"diffusion.stream: {mode!r} needs stream: true.", "diffusion.stream")
        return "final", strategy
    return mode or "block", strategy


def _prompts(prompt: str | list[int] | list[str] | list[list[int]]) -> list[Prompt]:
    if isinstance(prompt, str):
        return [Prompt(text=prompt)]
    if not prompt:
        return [Prompt(token_ids=())]
    if isinstance(prompt[0], int):
        return [Prompt(token_ids=tuple(prompt))]
    return [Prompt(text=entry) if isinstance(entry, str) else Prompt(token_ids=tuple(entry)) for entry in prompt]
