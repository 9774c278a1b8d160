"""A log record as one line: JSON for machines, text for people."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import ClassVar

from deployments.logs.request_log import RequestLog, current
from deployments.telemetry import current_ids

OWN_LOGGERS = ("deployments", "engine", "cluster")
STAMP = "lacuna_stamp"
WITHHELD = "(text withheld, see log_prompts)"


class RequestStamp(logging.Filter):
    """Notes on each record which request and trace it is about, in the task that logs it: a handler may keep records
    for a while before it writes them, as Serve's does where it is set up for throughput."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, STAMP):
            setattr(record, STAMP, (current(), current_ids()))
        return True


class Lines(logging.Formatter):
    """What all lines tell: when, how bad, by whom, what, of which process and which request.

    ``identity`` are fields of the process. A record's ``fields`` (``extra={"fields": {...}}``) become fields of the
    line. Texts of exceptions may quote a request. Unless ``shows_texts``, they are told only where no request is worked
    on, and by our own loggers; Serve and asyncio log exceptions of requests, too.
    """

    def __init__(self, identity: Mapping[str, str], *, shows_texts: bool = False) -> None:
        super().__init__()
        self._identity = {name: value for name, value in identity.items() if value}
        self._shows_texts = shows_texts

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """The line's fields in their order."""
        log, ids = _stamp(record)
        ids = ids or (log.trace_ids if log else None)
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._message(record),
            **self._identity,
        }
        if request_id := log.request_id if log else getattr(record, "request_id", ""):
            fields["request_id"] = request_id
        if ids:
            fields["trace_id"], fields["span_id"] = ids
        fields |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = "".join(_told(record.exc_info[1], with_text=self._may_tell(record))).rstrip()
        return fields

    def _may_tell(self, record: logging.LogRecord) -> bool:
        return self._shows_texts or (_stamp(record)[0] is None and _is_own(record))

    def _message(self, record: logging.LogRecord) -> str:
        """asyncio describes the failed task from the second line on, with its exception's text."""
        message = record.getMessage()
        return message.partition("\n")[0] if record.name == "asyncio" and not self._shows_texts else message


class JsonLines(Lines):
    """One JSON object per line, in ASCII: nothing in it can end the line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record), default=str)


class TextLines(Lines):
    """Time, level, process, logger, request, message, then the rest as name=value; an exception follows on lines of its
    own."""

    HEAD: ClassVar = ("time", "level", "component", "model", "logger", "request_id", "message")
    LEFT_OUT: ClassVar = ("replica", "exception", "span_id")

    def format(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        parts = [str(fields[name]) for name in self.HEAD if name in fields]
        parts += [f"{name}={value}" for name, value in fields.items() if name not in (*self.HEAD, *self.LEFT_OUT)]
        line = " ".join(parts)
        return f"{line}\n{fields['exception']}" if "exception" in fields else line


def _stamp(record: logging.LogRecord) -> tuple[RequestLog | None, tuple[str, str] | None]:
    """The request and the trace ids of a record."""
    stamp: tuple[RequestLog | None, tuple[str, str] | None]
    stamp = getattr(record, STAMP, None) or (current(), current_ids())
    return stamp


def _is_own(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OWN_LOGGERS


def _told(error: BaseException, *, with_text: bool) -> Iterator[str]:
    """An exception and those that led to it, the first one first: where each was raised, its class and text."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _told(cause, with_text=with_text)
        yield "which led to:\n"
    yield from traceback.format_tb(error.__traceback__)
    text = str(error) if with_text else WITHHELD
    yield f"{type(error).__module__}.{type(error).__qualname__}: {text}\n"
