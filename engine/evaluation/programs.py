"""The program in a model's answer: what to run before the tests."""

from __future__ import annotations

import re
import textwrap

from engine.evaluation.formats.table import FORMATS
from engine.evaluation.tasks.sample import CodeTests

FENCE = "```"
BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
ENDS_OF_BODY = FORMATS["humaneval"].stop
ENDS_OF_CODE = FORMATS["mbpp"].stop


def program(tests: CodeTests, text: str) -> str:
    """What ``tests.check`` runs after; empty where the answer has no code.

    An answer is a block between fences (the first that defines the entry point, else the first) or the whole text.
    With an entry point it may also be the rest of that function's body, as HumanEval's are: it then goes on from
    ``tests.before`` and ends at the first line that begins something new.
    """
    if tests.entry_point and _is_indented(text):
        return _going_on(tests, _cut(text, (*ENDS_OF_BODY, f"\n{FENCE}")))
    code = _block(text, tests.entry_point) or _cut(text, ENDS_OF_CODE)
    if not code.strip():
        return ""
    if not tests.entry_point:
        return f"{tests.before}\n{code}"
    head = _definition(tests.entry_point)
    if head.search(code):
        return f"{head.split(tests.before)[0]}\n{code}"
    return _going_on(tests, code if _is_indented(code) else textwrap.indent(code, "    "))


def _going_on(tests: CodeTests, body: str) -> str:
    return f"{tests.before.rstrip()}\n{body}"


def _block(text: str, entry_point: str) -> str:
    blocks: list[str] = BLOCK.findall(text)
    defining = [block for block in blocks if entry_point and _definition(entry_point).search(block)]
    return next(iter([*defining, *blocks]), "")


def _definition(name: str) -> re.Pattern[str]:
    return re.compile(rf"^(?=(?:async )?def {re.escape(name)}\b)", re.MULTILINE)


def _is_indented(text: str) -> bool:
    """Whether the first line with anything on it is; the start of the text counts as the start of a line."""
    return bool(re.match(r"(?:[ \t]*\n)*[ \t]+\S", text))


def _cut(text: str, ends: tuple[str, ...]) -> str:
    places = [place for end in ends if (place := text.find(end)) >= 0]
    return text[: min(places)] if places else text
