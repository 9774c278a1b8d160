"""Reports from finished outputs, and data sets from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import engine as engine_package
from engine.config import EngineConfig
from engine.errors import ConfigError, ContextLengthError
from engine.evaluation.datasets import held_out_set, read_data, read_jsonl
from engine.evaluation.evaluate import TOO_LONG, EvalConfig, EvalProgress, evaluate, evaluate_all, report
from engine.evaluation.tasks.sample import Sample
from engine.evaluation.verifiers import make_verifier
from engine.llm_engine import LLMEngine
from engine.outputs import RequestOutput, Usage
from engine.sampling_params import SamplingParams

DATA = Path(__file__).parent / "data"
SDAR = Path(engine_package.__file__).parent / "checkpoints" / "lacuna-tiny-sdar"


def output(text: str, tokens: int, forwards: int) -> RequestOutput:
    usage = Usage(completion_tokens=tokens, forwards=forwards)
    return RequestOutput(request_id="r", text=text, finish_reason="stop", usage=usage)


def test_report_counts_per_kind_and_overall() -> None:
    samples = [Sample("a", "p", "x"), Sample("b", "q", "y"), Sample("a", "r", "z")]
    outputs = [output("x", 4, 2), output("wrong", 6, 2), output("z", 2, 2)]
    result = report(samples, outputs, {"decoder": "threshold"}, seconds=2.0)
    first, second = result.kinds
    assert (first.kind, first.right, first.total, first.mean_forwards, first.tokens_per_forward) == (
        "a",
        2,
        2,
        2.0,
        1.5,
    )
    assert (second.kind, second.accuracy) == ("b", 0.0)
    assert (result.overall.right, result.overall.total, result.tokens_per_second) == (2, 3, 6.0)
    assert "66.7%" in result.to_table()
    assert json.loads(json.dumps(result.to_dict()))["kinds"]["a"]["accuracy"] == 1.0


def test_held_out_set_is_grouped_by_kind() -> None:
    samples = held_out_set(["json", "code"], per_kind=3)
    assert [sample.kind for sample in samples] == ["json"] * 3 + ["code"] * 3


def test_jsonl_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"prompt": "p", "answer": "a", "kind": "k"}\n\n{"prompt": "q", "answer": "b"}\n')
    assert read_jsonl(path) == [Sample("k", "p", "a"), Sample("default", "q", "b")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("3", "must be an object"),
        ("[3]", "item 1 must be an object"),
        ("[", "begins as a JSON list"),
        ('{"prompt": "p"}', "'answer'"),
        ('{"prompt": "p", "answer": 3}', "'answer'"),
        ('{"prompt": "p", "answer": "a", "extra": 1}', "unknown field 'extra'"),
        ("", "has no rows"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigError, match=message):
        read_jsonl(path)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_jsonl(tmp_path / "none.jsonl")


@pytest.fixture(scope="module")
def engine() -> LLMEngine:
    return LLMEngine.from_pretrained(SDAR, EngineConfig(device="cpu", max_num_seqs=4))


def test_several_samples_differ_and_are_the_same_again(engine: LLMEngine) -> None:
    samples = held_out_set(["chat"], per_kind=2)
    sampling = SamplingParams(max_tokens=8, temperature=2.0, seed=5)
    first, again = (evaluate(engine, samples, sampling, config=EvalConfig(num_samples=3)) for _ in range(2))
    assert [answer.text for answer in first.answers] == [answer.text for answer in again.answers]
    assert len({answer.text for answer in first.answers[:3]}) > 1
    assert (first.num_samples, len(first.answers)) == (3, 6)
    with pytest.raises(ConfigError, match="temperature above 0"):
        evaluate(engine, samples, SamplingParams(), config=EvalConfig(num_samples=3))


def test_a_prompt_that_is_too_long_is_a_wrong_answer(engine: LLMEngine) -> None:
    samples = [Sample("sum", "x" * 2000, "1"), Sample("sum", "What is 1 + 1?", "2")]
    (entry,) = evaluate_all(engine, samples, SamplingParams(max_tokens=8), {"default": engine.strategy({})})
    first, second = entry.report.answers
    assert (first.reason, first.right, first.forwards) == (TOO_LONG, False, 0)
    assert second.forwards > 0
    with pytest.raises(ContextLengthError):
        evaluate(engine, samples[:1], SamplingParams(max_tokens=8))


def test_base_models_go_on_up_to_the_formats_stops(engine: LLMEngine) -> None:
    data = read_data(DATA / "gsm8k.jsonl")
    config = EvalConfig(format=data.format, verifier=make_verifier("number"), shots=data.samples[:1], mode="completion")
    found = evaluate(engine, data.samples[1:3], SamplingParams(max_tokens=32), config=config)
    assert all("Question:" not in answer.text for answer in found.answers)
    assert {answer.kind for answer in found.answers} == {"gsm8k"}


def test_code_is_marked_by_running_it(engine: LLMEngine) -> None:
    data = read_data(DATA / "humaneval.jsonl")
    seen: list[EvalProgress] = []
    config = EvalConfig(format=data.format, verifier=make_verifier("code", workers=1))
    found = evaluate(engine, data.samples[:1], SamplingParams(max_tokens=8), None, seen.append, config)
    assert found.answers[0].reason
    assert seen[-1] == EvalProgress(1, 1, "marks")


def test_strategies_answer_the_same_prompts_and_say_how_far_they_are(engine: LLMEngine) -> None:
    samples = held_out_set(["conversion"], per_kind=3)
    seen: list[tuple[str, EvalProgress]] = []
    strategies = {
        "one": engine.strategy({"decoder": "low_confidence_static"}),
        "many": engine.strategy({"decoder": "threshold", "threshold": 0.5}),
    }
    one, many = evaluate_all(
        engine, samples, SamplingParams(max_tokens=48), strategies, lambda *step: seen.append(step)
    )
    assert (one.label, many.label) == ("one", "many")
    assert one.report.strategy["decoder"] == "low_confidence_static"
    assert len(one.report.answers) == len(many.report.answers) == 3
    assert one.report.overall.mean_forwards > many.report.overall.mean_forwards
    assert one.report.overall.positions_per_token > many.report.overall.positions_per_token > 0
    assert next(step for step in seen if step[1].finished == 3) == ("one", EvalProgress(3, 3))
    assert seen[-1] == ("many", EvalProgress(3, 3))
