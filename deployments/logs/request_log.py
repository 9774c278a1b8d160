"""What is known of the request that the current task works on, for the lines about it."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass, field

from engine.outputs import Usage

_CURRENT: ContextVar[RequestLog | None] = ContextVar("lacuna_request_log", default=None)


@dataclass(slots=True)
class RequestLog:
    """Owned by whoever answers the request; those that work on it fill in what they know.

    ``prompts`` and ``completions`` (by the sequence's index) are kept only where ``keeps_texts`` (the setting
    ``log_prompts``) is set. ``error`` is the class of the error that ended it, ``trace_ids`` are its trace and span.
    """

    request_id: str
    keeps_texts: bool = False
    api_key_name: str = ""
    model: str = ""
    arm: str = ""
    error: str = ""
    usage: Usage | None = None
    trace_ids: tuple[str, str] | None = None
    prompts: list[object] = field(default_factory=list)
    completions: dict[int, str] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)


def begin(log: RequestLog) -> Token[RequestLog | None]:
    """From now on this task, and those that it starts, work on this request."""
    return _CURRENT.set(log)


def end(token: Token[RequestLog | None]) -> None:
    """Back to what was before. A generator, which may end in another context than it began in, never calls it."""
    _CURRENT.reset(token)


def current() -> RequestLog | None:
    """The request that this task works on."""
    return _CURRENT.get()
