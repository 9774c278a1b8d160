"""When a completion counts as right, and how sure an accuracy is."""

from __future__ import annotations

import json
from typing import NamedTuple

RESULT_MARK = "####"


def matches(answer: str, completion: str) -> bool:
    """Compare a completion with the canonical answer.

    An answer with ``####`` asks for the same text after the last ``####``; a JSON object for an equal object; anything
    else for the same text up to surrounding white space.
    """
    answer, completion = answer.strip(), completion.strip()
    if RESULT_MARK in answer:
        return RESULT_MARK in completion and _result(answer) == _result(completion)
    if answer.startswith("{"):
        return _same_json(answer, completion)
    return answer == completion


def _result(text: str) -> str:
    return text.rsplit(RESULT_MARK, 1)[1].strip()


def _same_json(answer: str, completion: str) -> bool:
    try:
        return bool(json.loads(answer) == json.loads(completion))
    except json.JSONDecodeError:
        return answer == completion


class Interval(NamedTuple):
    """Half-open bounds of a proportion."""

    low: float
    high: float


def wilson_interval(successes: float, trials: int, z: float = 1.96) -> Interval:
    """Wilson score interval of a proportion, 95 % by default."""
    if trials == 0:
        return Interval(0.0, 1.0)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * (rate * (1 - rate) / trials + z * z / (4 * trials * trials)) ** 0.5
    scale = 1 + z * z / trials
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))
