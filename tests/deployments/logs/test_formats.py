"""Lines of the log: their fields, and what they keep to themselves."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from deployments.logs.config import LogConfig
from deployments.logs.formats import WITHHELD
from deployments.logs.request_log import RequestLog, begin, end
from deployments.logs.setup import lines_of

IDENTITY = {"component": "engine", "model": "m", "replica": "r1"}
CANARY = "a secret of the client's"


def record(message: str = "hello %d", *args: object, name: str = "engine.core", **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "core.py", 1, message, args or (1,), more.pop("exc_info", None))
    made.__dict__.update(more)
    return made


def failure(error: Exception) -> Any:
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as first:
            raise error from first
    except Exception:
        return sys.exc_info()


def as_json(made: logging.LogRecord, **settings: Any) -> dict[str, Any]:
    line = lines_of(LogConfig(log_format="json", **settings), IDENTITY).format(made)
    assert "\n" not in line
    loaded: dict[str, Any] = json.loads(line)
    return loaded


def test_a_line_is_one_object_with_its_process() -> None:
    line = as_json(record(fields={"rows": 3}))
    time = datetime.fromisoformat(line.pop("time"))
    assert time.utcoffset() == timedelta(0)
    expected = {"level": "WARNING", "logger": "engine.core", "message": "hello 1", **IDENTITY, "rows": 3}
    assert line == expected


def test_a_line_names_its_request_and_its_trace() -> None:
    span = NonRecordingSpan(SpanContext(trace_id=0xA, span_id=0xB, is_remote=True))
    token = begin(RequestLog("req-1", trace_ids=("c", "d")))
    try:
        assert as_json(record())["trace_id"] == "c"
        with trace.use_span(span):
            line = as_json(record())
    finally:
        end(token)
    assert (line["request_id"], line["trace_id"], line["span_id"]) == ("req-1", f"{0xA:032x}", f"{0xB:016x}")
    assert as_json(record(request_id="of-serve"))["request_id"] == "of-serve"
    assert "request_id" not in as_json(record())


def test_text_cannot_forge_a_second_line() -> None:
    line = as_json(record("%s", 'x"}\n{"level": "ERROR", "message": "\udcff forged'))
    assert line["level"] == "WARNING"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_exceptions_of_a_request_are_told_without_their_texts(log_format: str) -> None:
    made = record(exc_info=failure(RuntimeError(CANARY)))
    settings: Any = {"log_format": log_format}
    quiet, open_ = (lines_of(LogConfig(**settings, log_prompts=shown), IDENTITY) for shown in (False, True))
    token = begin(RequestLog("req-1"))
    try:
        line = quiet.format(made)
        assert CANARY in open_.format(made)
    finally:
        end(token)
    assert CANARY not in line
    assert f"builtins.RuntimeError: {WITHHELD}" in line
    assert f"builtins.KeyError: {WITHHELD}" in line
    assert "test_formats.py" in line
    assert CANARY in quiet.format(made), "our own, and no request is worked on"


def test_what_others_log_of_exceptions_is_told_without_texts() -> None:
    for name in ("ray.serve", "asyncio"):
        assert CANARY not in json.dumps(as_json(record(name=name, exc_info=failure(ValueError(CANARY)))))
    message = f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{CANARY}')>"
    assert as_json(record("%s", message, name="asyncio"))["message"] == "Task exception was never retrieved"
    assert CANARY in as_json(record("%s", message, name="asyncio"), log_prompts=True)["message"]


def test_text_is_for_people() -> None:
    line = lines_of(LogConfig(), IDENTITY).format(record(fields={"rows": 3}, request_id="req-1"))
    assert line.split(" ", 1)[1] == "WARNING engine m engine.core req-1 hello 1 rows=3"
