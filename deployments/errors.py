"""The one table from an error's class to what a client sees of it, over HTTP and over gRPC.

Classes that are not listed take the row of their nearest listed base; whatever is no ``LacunaError`` is an internal
error, whose text stays in the server's log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import grpc

from deployments.logs.request_log import current
from engine.errors import (
    AuthenticationError,
    CheckpointError,
    ConfigError,
    ContextLengthError,
    DeadlineExceededError,
    EngineDeadError,
    InvalidRequestError,
    LacunaError,
    ModelNotFoundError,
    OverloadedError,
    RanksDisagreeError,
    RequestAbortedError,
    RequestTooLargeError,
    UnknownStrategyError,
    UnsupportedModelError,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """``type`` and ``code`` are the fields of OpenAI's error object; ``retryable``: the same request may succeed."""

    http_status: int
    type: str
    code: str
    grpc_code: grpc.StatusCode
    retryable: bool = False


_INVALID = "invalid_request_error"
_SERVER = "server_error"
_Code = grpc.StatusCode

ERROR_TABLE: Mapping[type[LacunaError], ErrorRow] = MappingProxyType(
    {
        InvalidRequestError: ErrorRow(400, _INVALID, "invalid_value", _Code.INVALID_ARGUMENT),
        UnknownStrategyError: ErrorRow(400, _INVALID, "unknown_strategy", _Code.INVALID_ARGUMENT),
        ContextLengthError: ErrorRow(400, _INVALID, "context_length_exceeded", _Code.INVALID_ARGUMENT),
        RequestTooLargeError: ErrorRow(413, _INVALID, "request_too_large", _Code.RESOURCE_EXHAUSTED),
        AuthenticationError: ErrorRow(401, _INVALID, "invalid_api_key", _Code.UNAUTHENTICATED),
        ModelNotFoundError: ErrorRow(404, _INVALID, "model_not_found", _Code.NOT_FOUND),
        OverloadedError: ErrorRow(429, "rate_limit_error", "overloaded", _Code.RESOURCE_EXHAUSTED, retryable=True),
        DeadlineExceededError: ErrorRow(408, "timeout_error", "deadline_exceeded", _Code.DEADLINE_EXCEEDED),
        RequestAbortedError: ErrorRow(499, _INVALID, "request_aborted", _Code.CANCELLED, retryable=True),
        ConfigError: ErrorRow(500, _SERVER, "server_misconfigured", _Code.FAILED_PRECONDITION),
        CheckpointError: ErrorRow(500, _SERVER, "checkpoint_unusable", _Code.FAILED_PRECONDITION),
        UnsupportedModelError: ErrorRow(500, _SERVER, "model_unsupported", _Code.FAILED_PRECONDITION),
        EngineDeadError: ErrorRow(503, _SERVER, "engine_unavailable", _Code.UNAVAILABLE, retryable=True),
        RanksDisagreeError: ErrorRow(503, _SERVER, "engine_unavailable", _Code.UNAVAILABLE, retryable=True),
        LacunaError: ErrorRow(500, _SERVER, "internal_error", _Code.INTERNAL),
    }
)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as a transport sends it. ``param`` is the field's name in that transport."""

    row: ErrorRow
    message: str
    param: str | None
    retry_after_s: float | None = None

    def openai_object(self) -> dict[str, object]:
        """OpenAI's error object."""
        return {
            "error": {"message": self.message, "type": self.row.type, "param": self.param, "code": self.row.code},
        }

    def headers(self) -> dict[str, str]:
        """HTTP headers: how long to wait (whole seconds, never 0), how to authenticate."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.row.http_status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def grpc_details(self) -> str:
        """The status message of a gRPC error. Serve drops trailing metadata of failed calls, so all is in the text."""
        parts = [self.message]
        if self.param is not None:
            parts.append(f"(field: {self.param})")
        if self.retry_after_s is not None:
            parts.append(f"(retry after {math.ceil(self.retry_after_s)} s)")
        return " ".join(parts)


def error_row(error: type[BaseException]) -> ErrorRow:
    """The row of the nearest class in the table along the method resolution order."""
    return next((ERROR_TABLE[base] for base in error.__mro__ if base in ERROR_TABLE), ERROR_TABLE[LacunaError])


def describe(error: BaseException, request_id: str, strategy_field: str = "strategy") -> ErrorReply:
    """What a client is told about ``error``; unknown exceptions are logged here and told apart by ``request_id`` only.

    ``strategy_field`` is what the transport calls the strategy ("diffusion" over HTTP).
    """
    if (log := current()) is not None:
        log.error = type(error).__name__
    if not isinstance(error, LacunaError):
        logger.error("request %s failed unexpectedly", request_id, exc_info=error)
        return ErrorReply(ERROR_TABLE[LacunaError], f"The server failed on request {request_id}; see its log.", None)
    param = error.param
    if param is not None and (param == "strategy" or param.startswith("strategy.")):
        param = strategy_field + param.removeprefix("strategy")
    retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else None
    return ErrorReply(error_row(type(error)), _encodable(error.message), param and _encodable(param), retry_after_s)


def _encodable(text: str) -> str:
    """A client's own words may hold what no answer can carry: unpaired surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()
