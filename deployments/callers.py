"""Who sent a request and how it is to be followed: what a transport reads beside the request's body."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from engine.errors import InvalidRequestError

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """``request_id`` names the HTTP request or the RPC, in its answer and in logs; ``api_key_name`` is "" where no key
    was needed; ``timeout_s`` is what the client's own deadline leaves (None: it has none)."""

    request_id: str = ""
    api_key_name: str = ""
    traceparent: str | None = None
    tracestate: str | None = None
    session_id: str | None = None
    timeout_s: float | None = None


ANONYMOUS = Caller()


def new_request_id(prefix: str) -> str:
    """A random id in OpenAI's style."""
    return f"{prefix}-{secrets.token_hex(12)}"


def loggable_request_id(given: str) -> str:
    """The id where it may be one, else what stands for it in logs: a refused one can be any text."""
    return given if _REQUEST_ID.fullmatch(given) else "refused"


def check_request_id(given: str | None) -> str:
    """The client's id, or a fresh one where it gave none; InvalidRequestError for what does not belong into logs."""
    if not given:
        return new_request_id("req")
    if _REQUEST_ID.fullmatch(given) is None:
        raise InvalidRequestError(
            f"{REQUEST_ID_HEADER}: 1 to 128 letters, digits and . _ : / + = @ - are allowed.", REQUEST_ID_HEADER
        )
    return given
