"""README.md's examples, run as they stand.

A fenced block is run when the line before it is `<!-- test: KIND -->`: `http`, `openai` and `grpc` blocks talk to a
running server, `offline` and `cli` blocks need none. Blocks of `python` and of `bash`, `sh` or `console` are run,
without `$ ` prompts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import BIN, ROOT, Server

BLOCK = re.compile(r"<!-- test: (?P<kind>\w+) -->\n+```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
ONLINE, OFFLINE = {"http", "openai", "grpc"}, {"offline", "cli"}
DEFAULT_PORTS = {"8000": "http_port", "9000": "grpc_port"}


@dataclass(frozen=True, slots=True)
class Example:
    kind: str
    language: str
    code: str


def read_examples(text: str) -> list[Example]:
    return [Example(found["kind"], found["language"], found["code"]) for found in BLOCK.finditer(text)]


EXAMPLES = read_examples((ROOT / "README.md").read_text())


def run(example: Example, server: Server | None) -> str:
    code = example.code
    for port, name in DEFAULT_PORTS.items():
        if server is not None:
            code = re.sub(rf"(localhost|127\.0\.0\.1):{port}\b", rf"127.0.0.1:{getattr(server, name)}", code)
    if example.language == "python":
        command = [sys.executable, "-W", "error::SyntaxWarning", "-c", code]
    else:
        script = "\n".join(line.removeprefix("$ ") for line in code.splitlines())
        command = ["bash", "-euo", "pipefail", "-c", script]
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readme_has_examples_of_every_kind() -> None:
    assert {example.kind for example in EXAMPLES} == ONLINE | OFFLINE
    assert {example.language for example in EXAMPLES} <= {"python", "bash", "sh", "console"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.kind}-{one.language}")
def test_examples_run(example: Example, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("server") if example.kind in ONLINE else None
    output = run(example, server)
    assert output.strip(), "an example shows something"
    assert '"error"' not in output
