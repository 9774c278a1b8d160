"""What a task yields, and which prompts are held out of training."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import NamedTuple


class Sample(NamedTuple):
    """One question and its only right answer."""

    kind: str
    prompt: str
    answer: str


class QuestionAnswer(NamedTuple):
    """A sample before it is labelled with its kind."""

    prompt: str
    answer: str


Generator = Callable[[random.Random], QuestionAnswer]

HELD_OUT_ONE_IN = 16


def is_held_out(prompt: str) -> bool:
    """One prompt in sixteen, chosen by its own hash: the split needs no list and never changes."""
    return hashlib.md5(prompt.encode(), usedforsecurity=False).digest()[0] % HELD_OUT_ONE_IN == 0
