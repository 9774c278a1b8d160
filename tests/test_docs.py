"""The pages: links lead somewhere, every example is run or says why not, and the sizes are the engine's own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from engine.config import EngineConfig
from engine.memory import plan_memory
from tests.engine.models.test_published import published_spec

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    if not name.startswith("tests/goldens/")
]
FENCE = re.compile(r"^(?P<before>[^\n]*)\n+```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"bash", "sh", "console", "python"}
MARK = re.compile(r"<!-- (test: (?P<test>[\w-]+)|not run: \S.*) -->")
LINK = re.compile(r"(?<!`)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
SIZES = {
    "LLaDA-8B": "llada-8b",
    "LLaDA-MoE-7B-A1B": "llada-moe-7b-a1b",
    "Dream-7B": "dream-7b",
    "SDAR-8B": "sdar-8b",
    "SDAR-30B-A3B": "sdar-30b-a3b",
    "LLaDA2.0-mini": "llada2.0-mini",
    "LLaDA2.0-flash": "llada2.0-flash",
}


class Example(NamedTuple):
    page: Path
    before: str
    code: str


def examples() -> Iterator[Example]:
    for page in PAGES:
        for found in FENCE.finditer(page.read_text(encoding="utf-8")):
            if found["language"] in RUN:
                yield Example(page, found["before"], found["code"])


def anchors(page: Path) -> set[str]:
    """Of the headings, as they are made of Markdown's: lower case, words joined by dashes."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_is_something_to_check() -> None:
    assert {"README.md", "CONTRIBUTING.md"} < {page.name for page in PAGES}
    assert sum(1 for _ in examples()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for found in LINK.finditer(page.read_text(encoding="utf-8")):
        target, _, anchor = found["target"].partition("#")
        if target.startswith(("http://", "https://")):
            continue
        there = page.parent / target if target else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(found["target"])
    assert lost == []


def test_every_example_is_run_or_says_why_not() -> None:
    unmarked = [f"{one.page.name}: {one.code.splitlines()[0]}" for one in examples() if not MARK.fullmatch(one.before)]
    assert unmarked == []


def test_marked_examples_are_those_of_pages_that_tests_run() -> None:
    run = {one.page.relative_to(ROOT).as_posix() for one in examples() if one.before.startswith("<!-- test: ")}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for page in run:
        folders, name = page.split("/")[:-1], page.split("/")[-1]
        path = "".join(f'"{folder}" / ' for folder in folders) + f'"{name}"'
        assert f"ROOT / {path}" in sources or f"REPOSITORY / {path}" in sources, f"no test reads {page}"


def test_the_sizes_are_what_the_engine_plans() -> None:
    page = (ROOT / "deployments" / "OPERATIONS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| (\d+)([^|]*) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    assert {row[0] for row in rows} == set(SIZES)
    for name, ranks, layout, *numbers in rows:
        spec = published_spec(SIZES[name])
        config = EngineConfig(
            max_model_len=4096,
            max_num_seqs=16,
            tensor_parallel_size=int(ranks),
            expert_parallel_size=int(ranks) if "ep" in layout else 1,
        )
        plan = plan_memory(spec, config, torch.bfloat16, torch.device("cuda"))
        planned = (plan.weight_bytes, plan.kv_slot_bytes, plan.forward_bytes, plan.total_bytes)
        for said, size in zip(numbers, planned, strict=True):
            assert float(said) == pytest.approx(size / 2**30, abs=0.06), f"{name} on {ranks}: {said}"
