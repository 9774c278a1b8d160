"""The number that a worked solution arrives at."""

from __future__ import annotations

import re
from decimal import Decimal

from engine.evaluation.scoring import RESULT_MARK

NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)")
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def final_number(text: str) -> Decimal | None:
    """The number after the first ``####``; without one that in the last ``\\boxed{}``; without either the last number.

    Signs of thousands and currency do not count. What follows a ``####`` is never searched further: a solution that
    marks something else as its answer has no number.
    """
    if RESULT_MARK in text:
        marked = text.split(RESULT_MARK, 1)[1].replace("$", "").strip()
        found = NUMBER.match(marked)
        return _value(found[0]) if found else None
    boxes = BOXED.findall(text)
    numbers = NUMBER.findall(boxes[-1] if boxes else text)
    return _value(numbers[-1]) if numbers else None


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", ""))
