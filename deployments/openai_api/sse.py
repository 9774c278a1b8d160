"""Server-sent events: framing, and a response that closes its source when the client goes."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.errors import describe
from deployments.openai_api.responses import AnswerFormat
from deployments.service import JobIncrement, add_usage
from engine.outputs import Usage

logger = logging.getLogger(__name__)

DONE = "data: [DONE]\n\n"
KEEPALIVE = ": keep-alive\n\n"


def frame(value: object) -> str:
    """One event: one line of data. ASCII only, because some clients take U+2028 for a line's end."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


async def events(
    stream: AsyncGenerator[JobIncrement | None], answer: AnswerFormat, *, include_usage: bool
) -> AsyncGenerator[str]:
    """Events of a running job; None in the stream is a pause. An error is an event and ends the stream, without the
    final ``[DONE]``."""
    usages: dict[int, Usage] = {}
    async with aclosing(stream):
        try:
            async for item in stream:
                if item is None:
                    yield KEEPALIVE
                    continue
                for chunk in answer.chunks(item, is_first=item.index not in usages):
                    yield frame(chunk)
                usages[item.index] = item.increment.output.usage
        except Exception as error:  # noqa: BLE001 - the status line is gone: the event is all that can be sent
            yield frame(describe(error, answer.job.request_id, "diffusion").openai_object())
            return
    if include_usage:
        ordered = [usage for _, usage in sorted(usages.items())]
        yield frame(answer.usage_chunk(add_usage(ordered, answer.job.num_choices)))
    yield DONE


class ClosingStreamingResponse(StreamingResponse):
    """Closes its body generator at once when the client goes, not when it is collected."""

    def __init__(self, body: AsyncGenerator[str], headers: dict[str, str]) -> None:
        super().__init__(body, media_type="text/event-stream", headers={"Cache-Control": "no-cache", **headers})
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._body):
            await super().__call__(scope, receive, send)
