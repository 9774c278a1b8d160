"""Options of ``bench serve``: what they mean, which contradict each other, and what is started."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from deployments.bench.__main__ import main
from deployments.bench.load.generator import Limit
from deployments.bench.load.measure import Point
from deployments.bench.load.options import add_arguments, check, load_options, points_of, service_options
from deployments.bench.load.requests import Lengths
from deployments.bench.load.targets import ServiceOptions
from deployments.cli.serve import application_settings
from engine.errors import InvalidRequestError


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_without_options_it_starts_the_embedded_model_and_asks_questions() -> None:
    arguments = parsed()
    check(arguments)
    assert points_of(arguments) == [Point("http", clients=1), Point("http", clients=8)]
    options = load_options(arguments, service_options(arguments).asked_model)
    request = options.mix.make(0, 0)
    assert (request.model, request.max_tokens, request.stream, request.ignore_eos) == (
        "lacuna-tiny-sdar",
        64,
        True,
        True,
    )
    assert isinstance(request.prompt, str)
    assert next(options.requests()) == request


def test_closed_and_open_loops_over_both_protocols() -> None:
    arguments = parsed("--clients", "2", "--rate", "1", "4.5", "--protocol", "both")
    labels = ["2 clients", "1/s", "4.5/s"]
    assert [point.label for point in points_of(arguments)] == [
        f"{name}, {one}" for name in ("http", "grpc") for one in labels
    ]


def test_options_of_requests() -> None:
    words = ["--prompt", "4-8", "--generate", "32", "--mixed", "--strategy", "fast", "--strategy", '{"threshold": 0.5}']
    options = load_options(
        parsed(*words, "--priority", "0", "3", "--no-stream", "--stop-early", "--requests", "5"), "m"
    )
    mix = options.mix
    assert (mix.prompts, mix.max_tokens) == (Lengths(4, 8), Lengths(8, 32))
    assert mix.strategies == [{"preset": "fast"}, {"threshold": 0.5}]
    assert mix.priorities == [0, 3]
    assert (mix.base.stream, mix.base.ignore_eos) == (False, False)
    assert options.limit == Limit(5, None)
    assert load_options(parsed(), "m").limit == Limit(None, 20.0)
    assert load_options(parsed("--requests", "5", "--duration", "3"), "m").limit == Limit(5, 3.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--url", "http://x", "--baseline", "main"], "--url and --baseline"),
        (["--scenario", "queue", "--baseline", "main"], "--scenario and --baseline"),
        (["--sweep"], "--slo-ms"),
        (["--sweep", "--slo-ms", "5", "--clients", "2"], "one --rate"),
        (["--sweep", "--slo-ms", "5", "--rate", "2", "3"], "one --rate"),
        (["--scenario", "queue", "--rate", "2"], "takes no --rate"),
        (["--scenario", "queue", "--clients", "2"], "--queued clients"),
        (["--scenario", "long-prompt", "--protocol", "both"], "one protocol"),
        (["--scenario", "queue", "--url", "http://x"], "--pid"),
        (["--url", "http://x", "--protocol", "both"], "--grpc HOST:PORT"),
        (["--url", "http://x", "--set", "a=b"], "not for --url"),
        (["--grpc", "x:1"], "belong to --url"),
        (["--config", "x.yaml", "--engine", "seed=1"], "need --model"),
        (["--plot", "x.svg", "--scenario", "queue"], "--plot"),
    ],
)
def test_contradictions_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check(parsed(*words))


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "0"],
        ["--clients", "-1"],
        ["--generate", "8-2"],
        ["--warmup", "-1"],
        ["--engine", "seed"],
        ["--slo-ms", "inf"],
    ],
)
def test_wrong_values_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)


def test_what_is_started_is_what_serve_understands(tmp_path: Path) -> None:
    options = ServiceOptions(
        models=["lacuna-tiny-llada", f"mine={tmp_path}"], engine={"max_num_seqs": 3}, settings=["max_queue_depth=9"]
    )
    words = options.words()
    assert words[::2] == ["--set", "--set"]
    config = application_settings(None, None, words[1::2], (None, None), (None, None))
    assert config.max_queue_depth == 9
    assert [model.id for model in config.models] == ["lacuna-tiny-llada", "mine"]
    assert [model.engine_config().max_num_seqs for model in config.models] == [3, 3]
    assert config.models[1].path == str(tmp_path)
    assert options.asked_model == "lacuna-tiny-llada"
    assert service_options(parsed("--config", "a.yaml")).words() == ["--config", str(Path("a.yaml").resolve())]
    assert service_options(parsed("--url", "http://x")).asked_model == ""


def test_a_service_that_answers_nothing_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "load.json"
    words = ["--url", "http://127.0.0.1:9", "--clients", "1", "--requests", "2", "--warmup", "0"]
    assert main(["serve", *words, "--output", str(output)]) == 1
    assert "2 of 2 failed: 2 x connection" in capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["results"][0]["errors"] == {"connection: ClientConnectorError": 2}
    assert written["results"][0]["total"]["p50"] is None
    assert main(["serve", "--sweep"]) == 2
    assert "--slo-ms" in capsys.readouterr().out
