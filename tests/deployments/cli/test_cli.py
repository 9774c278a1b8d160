"""deployments/cli: parsing, help, errors; generation over a recorded tiny checkpoint's engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.api_keys import KeyRing, load_keys
from deployments.cli import app, main
from deployments.cli.options import parse_knobs
from deployments.cli.serve import next_steps, read_settings, scaled, sharded
from deployments.config import SHIPPED_BASES, SHIPPED_MODELS, AppConfig
from deployments.launch import ServerOptions
from engine.errors import ConfigError, InvalidRequestError

COMMANDS = ["generate", "serve", "doctor", "eval", "compare", "experiment", "train", "adapt", "distill"]
COMMANDS += ["distill-report", "models", "keys", "strategies"]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_lists_the_commands_without_loading_torch_or_ray() -> None:
    code = (
        "import sys; from deployments.cli import app; from typer.testing import CliRunner;"
        "print(CliRunner().invoke(app, ['--help']).stdout);"
        "sys.exit(3 if {'torch', 'ray'} & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    assert "--help" in run(command, "--help")


@pytest.mark.parametrize(
    ("words", "knobs"),
    [
        (["--threshold", "0.9"], {"threshold": 0.9}),
        (["--low-threshold=0.4", "--steps", "8"], {"low_threshold": 0.4, "steps": 8}),
        (["--run-all-steps", "true"], {"run_all_steps": True}),
        (["--banned-tokens", "[1, 2]"], {"banned_tokens": [1, 2]}),
        (["--name", "plain"], {"name": "plain"}),
        ([], {}),
    ],
)
def test_knobs_are_options(words: list[str], knobs: dict[str, object]) -> None:
    assert parse_knobs(words) == knobs


@pytest.mark.parametrize("words", [["stray"], ["--threshold"], ["-x", "1"]])
def test_stray_words_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        parse_knobs(words)


def test_strategies_name_every_knob() -> None:
    text = run("strategies")
    assert "--threshold" in text
    parts = json.loads(run("strategies", "--json"))
    assert all(part["name"] in text for part in parts)
    only_blocks = run("strategies", "--attention", "block_causal")
    assert "dual" not in only_blocks


def test_strategies_of_a_model_begin_with_its_presets() -> None:
    text = run("strategies", "--model", "lacuna-tiny-llada")
    assert text.startswith("Presets")
    assert "balanced@1" in text
    parts = json.loads(run("strategies", "--model", "lacuna-tiny-llada", "--json"))
    assert [part["goal"] for part in parts if part["kind"] == "preset"] == ["quality", "balanced", "fast"]
    assert "block" not in [part["name"] for part in parts]


def test_models_lists_what_is_embedded() -> None:
    assert set(json.loads(run("models", "list", "--json"))) == set(SHIPPED_MODELS + SHIPPED_BASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "hi", "--model", "/no/such/folder"], "/no/such/folder"),
        (["generate", "hi", "--temperature", "99"], "--temperature"),
        (["generate", ""], "the prompt is empty"),
        (["generate", "hi", "there"], "unexpected argument 'there'"),
        (["models", "inspect", "/no/such/folder"], "/no/such/folder"),
        (["train", "huge", "--output", "/tmp/x"], "unknown preset 'huge'"),
        (["train", "tiny-llada", "--initial", "lacuna-tiny", "--output", "/tmp/x"], "nor the id of an embedded model"),
        (["strategies", "--attention", "sparse"], "--attention"),
        (["strategies", "--attention", "bidirectional", "--model", "lacuna-tiny-sdar"], "give one of them"),
        (["generate", "hi", "--preset", "turbo"], "there are: balanced, fast, quality"),
        (["eval", "--strategy", "threshold", "--threshold", "0.5"], "--threshold: write it into --strategy"),
        (["eval", "-s", "threshold", "-s", "threshold"], "may be given once"),
        (["eval", "-s", "threshold,half"], "cannot read 'half'"),
        (["eval", "--format", "mbpp"], "--format is about the file given by --data"),
        (["eval", "--quantization", "int4"], "quantization"),
        (["eval", "--model", "lacuna-tiny-ar", "--quantization", "int8"], "--quantization int8"),
        (["eval", "--samples", "2", "-n", "1"], "temperature above 0"),
        (["serve", "--set", "max_queue=3"], "unknown 'max_queue'"),
        (["serve", "--set", "nonsense"], "key=value"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lacuna", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1


def test_settings_of_a_file_and_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("max_queue_depth: 3\nlookahead: 2\n")
    settings = read_settings(path, ["a=/x"], ["lookahead=5"])
    config = AppConfig.parse(settings)
    assert (config.max_queue_depth, config.lookahead, config.models[0].id) == (3, 5, "a")
    path.write_text("- a list")
    with pytest.raises(ConfigError):
        read_settings(path, [], [])


def test_serving_says_what_to_type_next() -> None:
    text = next_steps(AppConfig.parse({"models": "a=/x"}), ServerOptions(http_port=1234, grpc_port=5678))
    assert "curl http://127.0.0.1:1234/v1/chat/completions" in text
    assert "127.0.0.1:5678" in text


def test_generate_prints_the_text_and_what_it_cost() -> None:
    result = CliRunner().invoke(
        app,
        ["generate", "What is 2 + 3?", "--max-tokens", "12", "--decoder", "threshold", "--threshold", "0.8"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "denoising steps" in result.stderr
    parsed = json.loads(run("generate", "What is 2 + 3?", "--max-tokens", "12", "--threshold", "0.8", "--decoder",
                            "threshold", "--json"))  # fmt: skip
    assert parsed["text"] == result.stdout.removesuffix("\n")
    assert 0 < parsed["completion_tokens"] <= 12


def test_the_canvas_is_drawn_step_by_step() -> None:
    result = CliRunner().invoke(
        app, ["generate", "What is 2 + 3?", "--max-tokens", "8", "--show-canvas"], catch_exceptions=False
    )
    drawn = [line for line in result.stderr.splitlines() if line[:4].strip().isdigit()]
    assert drawn
    assert "░" in drawn[0]
    assert [int(line[:4]) for line in drawn] == sorted(int(line[:4]) for line in drawn)


COUNTS = ["--kind", "conversion", "--count", "2", "--max-tokens", "32"]


def test_strategies_are_compared_in_a_table_and_in_files(tmp_path: Path) -> None:
    texts = ["low_confidence_static", "threshold,threshold=0.8"]
    table = run("eval", *COUNTS, "-s", texts[0], "-s", texts[1], "--out", str(tmp_path))
    assert all(text in table for text in [*texts, "against the first", "conversion"])
    record = json.loads((tmp_path / "results.json").read_text())
    assert [one["label"] for one in record["strategies"]] == texts
    assert record["strategies"][1]["strategy"]["threshold"] == 0.8
    assert texts[1] in (tmp_path / "accuracy_vs_tpf.svg").read_text()


def test_one_strategy_is_reported_kind_by_kind() -> None:
    assert "conversion" in run("eval", *COUNTS, "--decoder", "threshold", "--threshold", "0.8")
    report = json.loads(run("eval", *COUNTS, "--strategy", "threshold", "--json"))
    assert report["strategy"]["decoder"] == "threshold"


HUMANEVAL = Path(__file__).parents[2] / "engine" / "evaluation" / "data" / "humaneval.jsonl"


def test_a_benchmark_is_asked_marked_and_its_bad_rows_are_named(tmp_path: Path) -> None:
    arguments = ["eval", "--data", str(HUMANEVAL), "--max-tokens", "8", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--allow-code", "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 of 3 rows are left out:\n" in result.stderr
    assert "line 3 needs a function" in result.stderr
    assert json.loads(result.stdout)["kinds"]["humaneval"]["total"] == 2
    told = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [one["name"] for one in told] == ["Own/0", "Own/1"]
    with pytest.raises(InvalidRequestError, match="Add --allow-code"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_examples_are_not_asked(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"question": "{n} + 1?", "answer": "{n + 1}"}}\n' for n in range(4)))
    few = ["eval", "--data", str(data), "--max-tokens", "8", "--json"]
    assert json.loads(run(*few, "--shots", "3"))["overall"]["total"] == 1
    assert json.loads(run(*few, "--shots-data", str(data), "--shots", "4"))["overall"]["total"] == 4
    for wrong in (["--shots", "4"], ["--shots-data", str(data), "--shots", "5"], ["--mode", "completion"]):
        with pytest.raises(ConfigError, match="too few"):
            run(*few, *wrong)
    with pytest.raises(InvalidRequestError, match="say by --shots"):
        run(*few, "--shots-data", str(data), "--shots", "0")


def test_serve_bounds_the_replicas_of_every_model() -> None:
    config = AppConfig.parse({"models": [{"id": "a", "path": "/x"}, {"id": "b", "path": "/y", "autoscaling": {}}]})
    assert scaled(config, None, None) is config
    for model in scaled(config, 0, 4).models:
        assert model.autoscaling is not None
        assert (model.autoscaling.min_replicas, model.autoscaling.max_replicas) == (0, 4)
    (low, _) = scaled(config, 2, None).models
    assert low.autoscaling is not None
    assert (low.autoscaling.min_replicas, low.autoscaling.max_replicas) == (2, 2)
    with pytest.raises(ConfigError, match="exceeds"):
        scaled(config, 3, 2)


def test_serve_divides_every_model() -> None:
    config = AppConfig.parse({"models": ["lacuna-tiny-sdar", {"id": "m", "path": "/x", "engine": {"seed": 3}}]})
    assert sharded(config, None, None) is config
    first, second = (model.engine_config() for model in sharded(config, 2, 4).models)
    assert (first.tensor_parallel_size, first.expert_parallel_size, first.seed) == (2, 4, 0)
    assert (second.layout.world_size, second.seed) == (4, 3)
    with pytest.raises(ConfigError, match="the larger must be a multiple of the smaller"):
        sharded(config, 2, 3)


def test_a_new_key_opens_what_its_entry_says() -> None:
    output = run("keys", "new", "alice")
    key = re.search(r"lacuna-[\w-]{43}", output)
    entry = re.search(r"\{.*\}", output)
    assert key is not None
    assert entry is not None
    config = AppConfig.parse({"api_keys": f"[{entry.group()}]"})
    assert KeyRing(load_keys(config.api_keys)).authenticate(f"Bearer {key.group()}") == "alice"
    assert key.group() not in entry.group()
    with pytest.raises(ConfigError, match="NAME"):
        CliRunner().invoke(app, ["keys", "new", "a b"], catch_exceptions=False)


def test_the_greeting_says_whether_the_server_is_open() -> None:
    assert "whoever reaches the ports" in next_steps(AppConfig(), ServerOptions())
    closed = AppConfig.parse({"api_keys": "env:KEYS"})
    assert "whoever" not in next_steps(closed, ServerOptions())
    assert "Authorization: Bearer" in next_steps(closed, ServerOptions())
