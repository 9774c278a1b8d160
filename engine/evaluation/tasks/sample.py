"""What a task yields, and which prompts are held out of training."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import NamedTuple


class CodeTests(NamedTuple):
    """What the code of an answer has to pass.

    ``before`` comes first: imports, or with an ``entry_point`` the code that the answer goes on from, which ends in
    that function's head. ``check`` comes last and raises where the code is wrong.
    """

    before: str
    check: str
    entry_point: str = ""


class Sample(NamedTuple):
    """One question and its right answer: the only one, or one that passes the ``tests``. ``name`` is how its source
    calls it."""

    kind: str
    prompt: str
    answer: str
    name: str = ""
    tests: CodeTests | None = None


class QuestionAnswer(NamedTuple):
    """A sample before it is labelled with its kind."""

    prompt: str
    answer: str


Generator = Callable[[random.Random], QuestionAnswer]

HELD_OUT_ONE_IN = 16


def is_held_out(prompt: str) -> bool:
    """One prompt in sixteen, chosen by its own hash: the split needs no list and never changes."""
    return hashlib.md5(prompt.encode(), usedforsecurity=False).digest()[0] % HELD_OUT_ONE_IN == 0
