"""Files of questions: packed, listed, with bad rows, in every format."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.evaluation.datasets import read_data, read_jsonl
from engine.evaluation.formats.table import FORMATS
from engine.evaluation.tasks.sample import Sample

DATA = Path(__file__).parent / "data"
GOOD = {"gsm8k": 4, "humaneval": 2, "mbpp": 3}
FAULTS = {
    "gsm8k": "line 4 needs a number in 'answer'",
    "humaneval": "line 3 needs a function of its prompt in 'entry_point', not 'other'",
    "mbpp": "line 4 needs at least one assert in 'test_list'",
}


@pytest.mark.parametrize("name", GOOD)
def test_the_format_is_recognised_and_bad_rows_are_named(name: str) -> None:
    data = read_data(DATA / f"{name}.jsonl")
    assert (data.format, len(data.samples)) == (FORMATS[name], GOOD[name])
    assert {sample.kind for sample in data.samples} == {name}
    (fault,) = data.bad_rows
    assert FAULTS[name] in fault


def test_packed_lines_and_a_list_hold_the_same(tmp_path: Path) -> None:
    path = DATA / "mbpp.jsonl"
    packed, listed = tmp_path / "mbpp.jsonl.gz", tmp_path / "mbpp.json"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    listed.write_text(json.dumps([json.loads(line) for line in path.read_text().splitlines()], indent=2))
    samples = read_data(path).samples
    assert read_data(packed).samples == read_data(listed).samples == samples
    assert "item 4 needs" in read_data(listed).bad_rows[0]
    assert [sample.name for sample in samples] == ["1", "2", "3"]
    assert [sample.tests.before for sample in samples if sample.tests] == ["", "import math", "PRIMES = {2, 3, 5, 7}"]


def test_the_first_row_of_a_known_kind_decides(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text(
        'no JSON\n{"id": 3}\n{"question": "1 + 1?", "answer": "2", "kind": "sum"}\n{"prompt": "p", "answer": "a"}\n'
    )
    data = read_data(path)
    assert data.samples == (Sample("sum", "1 + 1?", "2"),)
    assert [re.findall(r"line (\d)", row)[0] for row in data.bad_rows] == ["1", "2", "4"]
    assert read_jsonl(path) == [Sample("sum", "1 + 1?", "2")]
    assert read_data(path, "plain").samples == (Sample("default", "p", "a"),)


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("gsm8k", {"question": "q"}, "'answer'"),
        ("humaneval", {"prompt": "def f(): ...", "test": 3, "entry_point": "f"}, "'test'"),
        ("mbpp", {"text": "t", "test_list": "assert f()"}, "list of texts in 'test_list'"),
        ("mbpp", {"text": "t", "test_list": ["assert f()"], "test_setup_code": 1}, "'test_setup_code'"),
        ("mbpp", {"text": "t", "test_list": ["assert f()"], "task_id": [1]}, "'task_id'"),
        ("plain", {"prompt": "p", "answer": "a", "kind": ""}, "'kind'"),
        ("haiku", {"prompt": "p"}, "choose one of: auto, plain, gsm8k, humaneval, mbpp"),
    ],
)
def test_what_is_wrong_is_said(name: str, record: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=message):
        read_data(path, name)


def test_a_broken_package_is_said(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}" * 99)[:-12])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_data(path)
