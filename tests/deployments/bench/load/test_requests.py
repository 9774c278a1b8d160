"""deployments/bench/load/requests.py: lengths, mixes, data files."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.bench.load.clients import grpc_message, http_body
from deployments.bench.load.requests import (
    Lengths,
    LoadRequest,
    PromptRecord,
    RequestMix,
    read_prompts,
    task_prompts,
)
from engine.errors import ConfigError

BASE = LoadRequest(prompt="", max_tokens=0, model="m")


@pytest.mark.parametrize(("text", "expected"), [("128", Lengths(128, 128)), ("32-256", Lengths(32, 256))])
def test_lengths_are_a_number_or_a_range(text: str, expected: Lengths) -> None:
    assert Lengths.parse(text) == expected


@pytest.mark.parametrize("text", ["", "0", "9-3", "-4", "4-", "1.5"])
def test_other_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        Lengths.parse(text)


def test_mixed_lengths_begin_at_a_quarter() -> None:
    assert Lengths(8, 64).mixed() == Lengths(16, 64)
    assert Lengths(1, 1).mixed() == Lengths(1, 1)


def test_a_mix_repeats_and_uses_all_that_it_was_given() -> None:
    mix = RequestMix(
        prompts=Lengths(2, 5),
        max_tokens=Lengths(1, 3),
        base=BASE,
        strategies=[{}, {"decoder": "threshold"}],
        priorities=[0, 5],
    )
    requests = [mix.make(index, seed=1) for index in range(200)]
    assert requests == [mix.make(index, seed=1) for index in range(200)]
    assert requests != [mix.make(index, seed=2) for index in range(200)]
    assert {len(one.prompt) for one in requests} == {2, 3, 4, 5}
    assert {one.max_tokens for one in requests} == {1, 2, 3}
    assert len({one.group for one in requests}) == 4


def test_records_of_a_file_say_what_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"prompt": "a", "max_tokens": 7, "strategy": {"preset": "fast"}, "priority": 2}\n\n{"prompt": "b"}\n'
    )
    mix = RequestMix(prompts=read_prompts(path), max_tokens=Lengths(3, 3), base=BASE)
    first, second, third = (mix.make(index, 0) for index in range(3))
    assert (first.prompt, first.max_tokens, first.priority, dict(first.strategy)) == ("a", 7, 2, {"preset": "fast"})
    assert (second.prompt, second.max_tokens, second.priority, dict(second.strategy)) == ("b", 3, 0, {})
    assert third.prompt == "a"
    assert mix.of(stream=False).make(0, 0).stream is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no lines"),
        ('{"prompt": 3}', "line 1: prompt"),
        ('{"prompt": "a"}\n{"prompt": "a", "answer": "b"}', "line 2: answer"),
        ("nonsense", "line 1"),
    ],
)
def test_wrong_data_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_prompts(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "none")


def test_questions_are_mixed_and_repeat() -> None:
    prompts = task_prompts(seed=1, per_kind=2)
    assert prompts == task_prompts(seed=1, per_kind=2)
    assert len(set(prompts)) > 10
    assert isinstance(prompts[0], PromptRecord)


def test_both_transports_ask_the_same() -> None:
    strategy = {"decoder": "threshold", "block_length": 8, "threshold": 0.5}
    request = LoadRequest(
        prompt=(20, 21), max_tokens=9, model="m", strategy=strategy, priority=3, stream=True, timeout_s=2.5
    )
    body = http_body(request)
    assert body == {
        "prompt": [20, 21],
        "max_tokens": 9,
        "ignore_eos": True,
        "timeout_ms": 2500,
        "model": "m",
        "diffusion": strategy,
        "priority": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    message = grpc_message(request)
    assert list(message.token_ids.ids) == [20, 21]
    assert (message.sampling.max_tokens, message.sampling.ignore_eos, message.priority) == (9, True, 3)
    assert (message.strategy.decoder, message.strategy.block_length) == ("threshold", 8)
    assert dict(message.strategy.params) == {"threshold": 0.5}
    assert (message.model, message.timeout_ms) == ("m", 2500)
    plain = LoadRequest(prompt="hi", max_tokens=1, stream=False, ignore_eos=False)
    assert http_body(plain) == {"prompt": "hi", "max_tokens": 1, "ignore_eos": False, "timeout_ms": 120_000}
    assert grpc_message(plain).text == "hi"
    assert not grpc_message(plain).HasField("strategy")
