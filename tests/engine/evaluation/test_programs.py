"""The program in an answer. What a program does is told by running it here: these are the tests' own."""

from __future__ import annotations

import pytest

from engine.evaluation.programs import program
from engine.evaluation.tasks.sample import CodeTests

HEAD = 'from math import pi\n\n\ndef helper(x):\n    return x\n\n\ndef area(r):\n    """Of a circle."""\n'
FUNCTION = CodeTests(HEAD, "", "area")
FREE = CodeTests("import math", "")
BODY = "    return pi * helper(r) ** 2\n"
WHOLE = f"def area(r):\n{BODY}"


def area_of(text: str) -> object:
    names: dict[str, object] = {}
    exec(program(FUNCTION, text), names)
    return names["area"](2)  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        f"\n\n{BODY}",
        f"{BODY}\n\ndef area(r):\n    return 0\n",
        f"{BODY}\nprint(area(3))\nraise SystemExit",
        f"{BODY}```\nThat is all.",
        WHOLE,
        f"from math import pi\n\n{WHOLE}",
        f"Here you are:\n```python\n{WHOLE}```\nIt works.",
        f"Here you are:\n\n   ```py\n{WHOLE}   ```",
        f"```python\n{WHOLE}",
        f"First a test:\n```\nassert area(1)\n```\nNow the function:\n```python\n{WHOLE}\n```",
        f"The body:\n```\n{BODY}```",
        "The body:\n```\nreturn pi * helper(r) ** 2\n```",
        "return pi * helper(r) ** 2",
    ],
)
def test_every_way_to_write_the_function_is_understood(text: str) -> None:
    assert area_of(text) == pytest.approx(12.566, abs=0.001)


def test_a_prompt_without_a_last_line_break_is_gone_on_from_below() -> None:
    tests = CodeTests(HEAD.rstrip(), "", "area")
    assert program(tests, BODY) == HEAD.rstrip() + "\n" + BODY


def test_without_an_entry_point_the_code_comes_after_the_set_up() -> None:
    assert program(FREE, "x = 1\n[DONE]\nYou are an expert") == "import math\nx = 1\n"
    assert program(FREE, "It is:\n```python\nx = 1\n```\nand\n```python\ny = 2\n```") == "import math\nx = 1\n"
    assert program(FREE, "    x = 1\n") == "import math\n    x = 1\n"


@pytest.mark.parametrize("text", ["", " \n", "[DONE]", "[DONE] def area(r): ..."])
@pytest.mark.parametrize("tests", [FREE, FUNCTION])
def test_an_answer_without_code_is_no_program(tests: CodeTests, text: str) -> None:
    assert program(tests, text) == ""
