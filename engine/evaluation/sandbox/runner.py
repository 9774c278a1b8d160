"""The inside of the sandbox: takes one job from stdin, gives up all rights, runs the program, then its tests.

What the program prints goes nowhere. Two lines of JSON leave through what was stdout: one when the restrictions hold,
one when the tests have ended. The second carries the job's mark, which the program is not given: a process that ends
early, whatever its exit status, has passed nothing.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable

from engine.evaluation.sandbox.restrict import restrict

MODULE = "solution"
MAX_DETAIL = 200


def main() -> None:
    """Run one job; never returns."""
    sys.path.pop(0)  # where this module was found
    job = json.load(sys.stdin)
    write, leave, channel = os.write, os._exit, _take_channel()
    active = restrict(os.getcwd(), job["cpu_seconds"], job["memory_bytes"], job["file_bytes"])
    write(channel, _line(ready=active))
    mark = job["mark"]
    passed = _line(mark=mark, status="passed", detail="")
    try:
        _run(job["solution"], job["check"])
        write(channel, passed)
    except BaseException as error:  # noqa: BLE001 - the program may raise anything
        write(channel, _line(mark=mark, status=_status(error), detail=_describe(error)))
    leave(0)


def _take_channel() -> int:
    """The way out under a number that no program expects; the standard streams lead nowhere."""
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    return channel


def _run(solution: str, check: str) -> None:
    """Both parts are compiled before either runs, each by itself: an open bracket or quote can't swallow the tests."""
    module = types.ModuleType(MODULE)
    parts = [
        compile(source, name, "exec", dont_inherit=True, optimize=0)
        for source, name in ((solution, "<solution>"), (check, "<tests>"))
    ]
    sys.modules[MODULE] = module
    execute: Callable[[types.CodeType, dict[str, object]], None] = exec
    for part in parts:
        execute(part, module.__dict__)


def _status(error: BaseException) -> str:
    if isinstance(error, AssertionError):
        return "wrong"
    if isinstance(error, SystemExit):
        return "exit"
    return "memory" if isinstance(error, MemoryError) else "error"


def _describe(error: BaseException) -> str:
    try:
        message = str(error)[:MAX_DETAIL]
    except BaseException:  # noqa: BLE001 - an exception of the program's own
        message = ""
    name = type(error).__name__[:MAX_DETAIL]
    return f"{name}: {message}" if message else name


def _line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"
