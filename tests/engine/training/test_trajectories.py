"""Files of trajectories: what is kept, how a broken-off collection goes on, what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError, InvalidRequestError
from engine.evaluation.tasks.sample import Sample, is_held_out
from engine.llm_engine import LLMEngine
from engine.training.collection import CollectConfig, Collector, heading, training_questions
from engine.training.trajectories import (
    RIGHT,
    Attempt,
    CollectionWriter,
    Heading,
    is_complete,
    read_collection,
    tally,
)

EMBEDDED = Path(__file__).parents[3] / "engine" / "checkpoints"
HEADING = Heading(
    model="teacher",
    questions="a file",
    num_prompts=3,
    samples_per_prompt=1,
    strategy={"decoder": "threshold"},
    block_length=8,
    verifier="exact",
    temperature=0.0,
    max_tokens=32,
    seed=0,
)
ATTEMPT = Attempt(
    index=0,
    kind="fact",
    seed=0,
    verdict=RIGHT,
    prompt_ids=[2, 3, 9, 4],
    canvas_ids=[7, 8, 0, 1],
    revealed_at=[1, 3, 1, 0],
    answer_len=3,
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trajectories.jsonl"
    wrong = replace(ATTEMPT, index=1, kind="list", verdict="wrong")
    CollectionWriter(path, HEADING).add([ATTEMPT, wrong])
    found = read_collection(path)
    assert found.heading == HEADING
    assert found.attempts == [ATTEMPT, wrong]
    assert found.accepted == [ATTEMPT]
    assert tally(found.attempts) == {"fact": Counter({RIGHT: 1}), "list": Counter(wrong=1)}
    sample = found.accepted[0].sample()
    assert (sample.answer, sample.canvas, sample.revealed_at) == ([7, 8, 0], (7, 8, 0, 1), (1, 3, 1, 0))
    assert ATTEMPT.num_rounds == 2


def test_a_broken_off_collection_goes_on_behind_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    CollectionWriter(path, HEADING).add([ATTEMPT, replace(ATTEMPT, index=1)])
    whole = path.read_text()
    path.write_text(whole[:-9])
    writer = CollectionWriter(path, HEADING)
    assert [attempt.index for attempt in writer.attempts] == [0]
    writer.add([replace(ATTEMPT, index=1)])
    assert path.read_text() == whole


def test_a_file_that_was_collected_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    CollectionWriter(path, HEADING)
    with pytest.raises(ConfigError, match=r"temperature = 0\.0, not 0\.7"):
        CollectionWriter(path, replace(HEADING, temperature=0.7))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no lines"),
        ('{"model": "x"}\n', "line 1 is not the heading"),
        ("HEADING\n[1]\n", "line 2 is not a trajectory"),
        ('HEADING\n{"index": 0}\n', "line 2 is not a trajectory"),
    ],
)
def test_files_that_hold_no_trajectories_are_named_with_the_line(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    CollectionWriter(path, HEADING)
    first = path.read_text().strip()
    path.write_text(text.replace("HEADING", first))
    with pytest.raises(ConfigError, match=complaint):
        read_collection(path)


def test_a_canvas_without_its_steps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    CollectionWriter(path, HEADING).add([replace(ATTEMPT, revealed_at=[1])])
    with pytest.raises(ConfigError, match="do not go together"):
        read_collection(path)


def test_training_prompts_are_distinct_and_not_held_out() -> None:
    questions = training_questions(200, seed=3)
    assert len({question.prompt for question in questions}) == 200
    assert not any(is_held_out(question.prompt) for question in questions)
    assert questions == training_questions(200, seed=3)


@pytest.fixture(scope="module")
def engine() -> LLMEngine:
    return LLMEngine.from_pretrained(EMBEDDED / "lacuna-tiny-llada", EngineConfig(device="cpu", max_num_seqs=4))


QUESTIONS = [
    Sample("fact", "What is the capital of France?", "The capital of France is Paris."),
    Sample("fact", "What is the capital of Spain?", "This is not what the model says."),
    Sample("fact", "What is the capital of Italy?", "The capital of Italy is Rome."),
]


def test_attempts_are_marked_and_do_not_depend_on_where_the_collection_was_broken_off(
    engine: LLMEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, config = engine.strategy({}), CollectConfig(max_tokens=32)
    about = heading(strategy, config, "tiny", "a test", 3, "exact")
    counts: list[int] = []
    whole = CollectionWriter(tmp_path / "whole.jsonl", about)
    Collector(engine, strategy, config).run(QUESTIONS, whole, lambda done, total: counts.append(done))
    assert [attempt.verdict for attempt in whole.attempts] == [RIGHT, "wrong", RIGHT]
    assert counts == [0, 3]
    for attempt in whole.attempts:
        assert all(
            (token == engine.spec.mask_token_id) == (step == 0)
            for token, step in zip(attempt.canvas_ids, attempt.revealed_at, strict=True)
        )
        assert attempt.canvas_ids[attempt.answer_len - 1] in engine.spec.stop_token_ids

    monkeypatch.setattr("engine.training.collection.CHUNK", 1)
    Collector(engine, strategy, config).run(QUESTIONS[:1], CollectionWriter(tmp_path / "parts.jsonl", about), print)
    again = CollectionWriter(tmp_path / "parts.jsonl", about)
    Collector(engine, strategy, config).run(QUESTIONS, again, print)
    assert (tmp_path / "parts.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_without_a_verifier_every_finished_answer_counts(engine: LLMEngine, tmp_path: Path) -> None:
    strategy, config = engine.strategy({}), CollectConfig(max_tokens=5, verifier=None)
    writer = CollectionWriter(tmp_path / "all.jsonl", heading(strategy, config, "tiny", "a test", 3, "none"))
    unending = Sample("list", "Sort the numbers 31, 12, 25 and 7 from small to large.", "x" * 40)
    Collector(engine, strategy, config).run([*QUESTIONS[1:2], unending], writer, print)
    assert {attempt.verdict for attempt in writer.attempts} <= {RIGHT, "unfinished"}
    assert "unfinished" in {attempt.verdict for attempt in writer.attempts}


def test_strategies_without_a_trajectory_are_refused(engine: LLMEngine) -> None:
    for options in ({"decoder": "joint_threshold"}, {"initial_length": 16, "cache": "none"}):
        with pytest.raises(InvalidRequestError, match="no trajectory"):
            Collector(engine, engine.strategy(options), CollectConfig())


def test_several_samples_need_a_temperature() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        CollectConfig(samples_per_prompt=2)


def test_those_that_wait_for_a_file_see_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "collection.jsonl"
    assert not is_complete(path)
    writer = CollectionWriter(path, HEADING)
    for index in range(HEADING.num_prompts):
        assert not is_complete(path)
        writer.add([replace(ATTEMPT, index=index)])
    assert is_complete(path)
