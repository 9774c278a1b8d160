"""Samples from JSONL files: order, place, bad rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.training.data import EncodedSample
from engine.training.jsonl import BadRowError, JsonlSamples


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def encode(row: Mapping[str, object]) -> list[EncodedSample]:
    """As many samples as ``n`` says, numbered."""
    n, name = row.get("n"), row.get("id")
    if not isinstance(n, int) or not isinstance(name, int):
        raise BadRowError("n is missing")
    return [EncodedSample([name], [piece]) for piece in range(n)]


def taken(stream: JsonlSamples, count: int) -> list[tuple[int, int]]:
    samples = [stream.take() for _ in range(count)]
    return [(sample.prompt[0], sample.answer[0]) for sample in samples]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    first = write(tmp_path / "a.jsonl", {"id": 0, "n": 2}, "", "{not json", {"id": 1, "n": 1}, "   ", {"id": 2, "n": 3})
    second = write(tmp_path / "b.jsonl", {"id": 3, "n": 1}, [1], {"id": 4}, {"id": 5, "n": 0})
    return [first, second]


EPOCH = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0)]


def test_every_epoch_has_every_sample_in_an_order_of_its_own(files: list[Path]) -> None:
    stream = JsonlSamples(files, encode, seed=0)
    epochs = [taken(stream, len(EPOCH)) for _ in range(4)]
    assert all(sorted(epoch) == EPOCH for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    again = JsonlSamples(files, encode, seed=0)
    assert [taken(again, len(EPOCH)) for _ in range(4)] == epochs
    assert taken(JsonlSamples(files, encode, seed=1), 4 * len(EPOCH)) != [
        sample for epoch in epochs for sample in epoch
    ]


def test_bad_rows_are_counted_once_and_named(files: list[Path]) -> None:
    stream = JsonlSamples(files, encode, seed=0)
    taken(stream, 3 * len(EPOCH))
    bad_rows = stream.bad_rows
    assert bad_rows.count == 3
    found = {row["place"]: row["reason"] for row in bad_rows.take_unwritten()}
    assert found.keys() == {f"{files[0]}:3", f"{files[1]}:2", f"{files[1]}:3"}
    assert found[f"{files[0]}:3"].startswith("not JSON")
    assert found[f"{files[1]}:2"] == "not a JSON object but a list"
    assert found[f"{files[1]}:3"] == "n is missing"


@pytest.mark.parametrize("before", range(2 * len(EPOCH)))
def test_a_stream_goes_on_where_another_was(files: list[Path], before: int) -> None:
    first = JsonlSamples(files, encode, seed=3)
    taken(first, before)
    state = json.loads(json.dumps(first.state()))
    second = JsonlSamples(files, encode, seed=3)
    second.restore(state)
    assert taken(second, 20) == taken(first, 20)


def test_a_file_of_bad_rows_alone_is_an_error(files: list[Path], tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", "nonsense", {"id": 4})
    with pytest.raises(ConfigError, match=r"bad\.jsonl has no usable row: .*bad\.jsonl:\d: "):
        taken(JsonlSamples([*files, bad], encode, seed=0), 2 * len(EPOCH))


def test_files_without_a_sample_are_an_error(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", {"id": 1, "n": 0}, {"id": 2, "n": 0})
    with pytest.raises(ConfigError, match="meant for this kind"):
        JsonlSamples([rows], encode, seed=0).take()


def test_files_that_are_missing_or_empty_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        JsonlSamples([tmp_path / "none.jsonl"], encode, seed=0)
    with pytest.raises(ConfigError, match="has no rows"):
        JsonlSamples([write(tmp_path / "empty.jsonl", "", " ")], encode, seed=0)


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": 0, "n": 1}\n{"id": "\xff"}\n')
    stream = JsonlSamples([path], encode, seed=0)
    taken(stream, 3)
    assert stream.bad_rows.examples[0].startswith(f"{path}:2: not JSON")
