"""From a transport's fields to the service's Job: shared by HTTP and gRPC. Validates what needs no model."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from pydantic import ValidationError

from deployments.callers import Caller
from deployments.config import AppConfig
from deployments.messages import Gap, GenerateCall, Job, Prompt, StreamMode
from deployments.work import CHARS_PER_TOKEN
from engine.errors import InvalidRequestError
from engine.sampling_params import SamplingParams

STREAM_MODES: tuple[StreamMode, ...] = get_args(StreamMode)
MAX_USER_LEN = 256
MAX_STOP_LEN = 256
MAX_STOPS = 16
MAX_SEGMENTS = 256
DEFAULT_SUFFIX_TOKENS = 16
"""Positions before a suffix where the request sets no max_tokens: OpenAI's default for completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFields:
    """A request as a transport read it, unset fields as None. ``sampling`` are SamplingParams by name."""

    request_id: str
    model: str | None
    prompts: Sequence[Prompt]
    sampling: Mapping[str, object]
    strategy: Mapping[str, object] = field(default_factory=dict)
    stream: StreamMode = "final"
    num_choices: int = 1
    priority: int = 0
    timeout_ms: int | None = None
    template: tuple[str | Gap, ...] | None = None
    logprobs: bool = False
    echo: bool = False
    user: str | None = None
    cache_salt: str | None = None
    caller: Caller = field(default_factory=Caller)


def build_job(fields: JobFields, config: AppConfig) -> Job:
    """Validate and expand into one call per prompt and choice; InvalidRequestError names the field."""
    num_sequences = len(fields.prompts) * fields.num_choices
    if num_sequences > config.max_sequences:
        raise InvalidRequestError(
            f"The request asks for {num_sequences} sequences (prompts x n); at most {config.max_sequences} are allowed",
            "n",
        )
    for prompt in fields.prompts:
        _check_prompt(prompt)
    for part in fields.template or ():
        if isinstance(part, str):
            check_unicode(part, "template")
    sampling = _sampling(fields.sampling)
    if fields.template is not None:  # for the router's prediction; the replica counts tokens
        sampling = replace(sampling, max_tokens=_template_len(fields.template))
    key = f"{fields.request_id}-{secrets.token_hex(4)}"
    timeout_s = _timeout_s(fields.timeout_ms, fields.caller.timeout_s, config)
    calls = tuple(
        GenerateCall(
            request_id=f"{key}-{index}",
            prompt=prompt,
            client_request_id=fields.caller.request_id,
            sampling=replace(sampling, seed=_seed(sampling, choice)),
            strategy=dict(fields.strategy),
            template=fields.template,
            stream=fields.stream,
            logprobs=fields.logprobs,
            echo=fields.echo,
            priority=fields.priority,
            timeout_s=timeout_s,
            traceparent=fields.caller.traceparent,
            tracestate=fields.caller.tracestate,
            session_id=fields.caller.session_id,
            cache_salt=f"{fields.caller.api_key_name}/{fields.cache_salt or ''}",
        )
        for index, (prompt, choice) in enumerate(
            (prompt, choice) for prompt in fields.prompts for choice in range(fields.num_choices)
        )
    )
    return Job(
        request_id=fields.request_id,
        key=key,
        model=fields.model or config.default_model_id,
        calls=calls,
        timeout_s=timeout_s,
        num_choices=fields.num_choices,
        priority=fields.priority,
        api_key_name=fields.caller.api_key_name,
        user=_user(fields.user),
    )


def _check_prompt(prompt: Prompt) -> None:
    if prompt.text == "" or prompt.token_ids == ():
        raise InvalidRequestError("The prompt is empty; give at least one token.", "prompt")
    if prompt.messages == ():
        raise InvalidRequestError("The conversation is empty; give at least one message.", "messages")
    for text in [prompt.text, *(message.content for message in prompt.messages or ())]:
        if text is not None:
            check_unicode(text, "prompt" if prompt.messages is None else "messages")


def check_unicode(text: str, field: str) -> None:
    """InvalidRequestError for text that has no UTF-8."""
    if not _is_unicode(text):
        raise InvalidRequestError(f"{field}: not valid Unicode: it contains an unpaired surrogate.", field)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sampling(given: Mapping[str, object]) -> SamplingParams:
    options = {name: value for name, value in given.items() if value is not None}
    try:
        sampling = SamplingParams(**options)  # type: ignore[arg-type] # validated here, by pydantic
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        name = str(finding["loc"][0])
        raise InvalidRequestError(f"{name}: {finding['msg']}, got {finding['input']!r}.", name) from None
    _check_stop(sampling.stop)
    return sampling


def _check_stop(stop: Sequence[str]) -> None:
    if len(stop) > MAX_STOPS:
        raise InvalidRequestError(f"stop: at most {MAX_STOPS} texts are allowed, got {len(stop)}.", "stop")
    for text in stop:
        if not 1 <= len(text) <= MAX_STOP_LEN or not _is_unicode(text):
            raise InvalidRequestError(
                f"stop: a stop text has 1 to {MAX_STOP_LEN} characters and is valid Unicode.", "stop"
            )


def _seed(sampling: SamplingParams, choice: int) -> int | None:
    """The seed of a choice. Without one, drawn requests must differ from each other: a random one."""
    if sampling.seed is not None:
        return sampling.seed + choice
    return secrets.randbelow(2**62) if sampling.temperature > 0 else None


def _template_len(template: Sequence[str | Gap]) -> int:
    """About how many positions a template has."""
    return max(1, sum(part.tokens if isinstance(part, Gap) else len(part) // CHARS_PER_TOKEN for part in template))


def _user(given: str | None) -> str:
    user = given or ""
    if len(user) > MAX_USER_LEN or not _is_unicode(user):
        raise InvalidRequestError(f"user: at most {MAX_USER_LEN} characters of valid Unicode are allowed.", "user")
    return user


def _timeout_s(timeout_ms: int | None, callers_s: float | None, config: AppConfig) -> float:
    """The request's own time, and never more than the client will wait anyway."""
    timeout_s = config.default_timeout_s if timeout_ms is None else timeout_ms / 1000
    if timeout_s > config.max_timeout_s:
        raise InvalidRequestError(
            f"timeout_ms: at most {config.max_timeout_s * 1000:.0f} is allowed, got {timeout_ms}.", "timeout_ms"
        )
    return timeout_s if callers_s is None else min(timeout_s, callers_s)
