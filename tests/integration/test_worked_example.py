"""The worked example of engine/decoding/DESIGN.md, installed as a distribution of its own and used as the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import engine
from tests.helpers.distributions import install

REPOSITORY = Path(engine.__file__).parents[1]
PAGE = (REPOSITORY / "engine" / "decoding" / "DESIGN.md").read_text(encoding="utf-8")
COMMAND = "from deployments.cli import main; main()"


def block(name: str) -> str:
    """The fenced block of the page behind ``<!-- test: name -->``."""
    found = re.search(rf"<!-- test: {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example as an installed distribution."""
    folder = tmp_path_factory.mktemp("site")
    groups = tomllib.loads(block("entry-point"))["project"]["entry-points"]
    install(folder, "sure-prefix", {"sure_prefix": block("decoder")}, groups)
    return folder


def run(site: Path, *arguments: str) -> str:
    """Python in a process that sees the distribution."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_class_is_as_short_as_the_page_says() -> None:
    source = block("decoder")
    assert len([line for line in source[source.index("class") :].splitlines() if line.strip()]) <= 20


def test_the_command_lists_it_with_its_knobs_and_its_distribution(site: Path) -> None:
    parts = {part["name"]: part for part in json.loads(run(site, "-c", COMMAND, "strategies", "--json"))}
    assert parts["sure_prefix"]["kind"] == "decoder"
    assert parts["sure_prefix"]["schema"]["properties"]["sureness"]["default"] == 0.9


def test_a_generation_with_it_fills_several_tokens_per_forward(site: Path) -> None:
    asked = ["generate", "Convert 3 hours to minutes.", "--max-tokens", "48", "--decoder", "sure_prefix", "--json"]
    answer = json.loads(run(site, "-c", COMMAND, *asked, "--sureness", "0.8"))
    assert answer["text"].endswith("#### 180")
    assert 2 * answer["forwards"] < answer["completion_tokens"]


def test_it_keeps_the_contract_of_decoders(site: Path) -> None:
    chosen = ["-k", "sure_prefix or is_finished_within", "-v", "-p", "no:cacheprovider"]
    tests = run(site, "-m", "pytest", "tests/engine/decoding/test_contract.py", *chosen)
    assert "is_finished_within_as_many_steps_as_masks PASSED" in tests
    assert "with_a_default[sure_prefix] PASSED" in tests
