"""Jobs of a distillation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deployments.cli import app
from engine.errors import ConfigError, UnsupportedModelError
from engine.training.data import EncodedSample
from engine.training.distill import DistillConfig, distill_job, files_like, row_lengths, usable
from engine.training.noise import Blocks, Canvas
from engine.training.replay import DistillSamples, Repeated, Replay
from engine.training.trajectories import RIGHT, Attempt, Heading
from engine.training.transitions import BlockTransition, CanvasTransition, Compress

EMBEDDED = Path(__file__).parents[3] / "engine" / "checkpoints"
HEADING = Heading(
    model="teacher",
    questions="a file",
    num_prompts=2,
    samples_per_prompt=1,
    strategy={"decoder": "threshold"},
    block_length=4,
    verifier="exact",
    temperature=0.0,
    max_tokens=8,
    seed=0,
)


def attempt(index: int, answer_len: int = 6) -> Attempt:
    return Attempt(
        index=index,
        kind="fact",
        seed=index,
        verdict=RIGHT,
        prompt_ids=[2, 3, 50 + index, 4],
        canvas_ids=[*range(60, 60 + answer_len - 1), 0, 1, 1],
        revealed_at=[*range(1, answer_len + 1), 0, 0],
        answer_len=answer_len,
    )


def samples(first: int, number: int) -> list[EncodedSample]:
    return [attempt(index).sample() for index in range(first, first + number)]


def test_each_pass_has_every_trajectory_once_in_an_order_of_its_own() -> None:
    stream = Repeated(samples(0, 8), seed=1)
    passes = [[stream.take().prompt[2] for _ in range(8)] for _ in range(3)]
    assert all(sorted(one) == list(range(50, 58)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_replayed_rows_come_from_the_ordinary_stream_and_both_streams_can_be_restored() -> None:
    def make() -> DistillSamples:
        return DistillSamples(Repeated(samples(0, 5), 1), Repeated(samples(100, 5), 1))

    stream, other = make(), make()
    objectives = [CanvasTransition(), Replay(Canvas(None)), CanvasTransition(), Replay(Canvas(4))]
    taken = [stream.take_for(objective).prompt[2] for objective in objectives]
    assert [token >= 150 for token in taken] == [False, True, False, True]
    other.restore(stream.state())
    for objective in objectives * 3:
        assert other.take_for(objective) == stream.take_for(objective)


def test_answers_of_other_lengths_are_left_out() -> None:
    attempts = [attempt(0, 3), attempt(1, 6), attempt(2, 9)]
    assert [len(sample.answer) for sample in usable(attempts, (4, 8))] == [6]
    with pytest.raises(ConfigError, match=r"10\.\.20"):
        usable(attempts, (10, 20))


@pytest.mark.parametrize(
    ("name", "own", "plain"),
    [
        ("lacuna-tiny-llada", CanvasTransition(Compress(2, 5)), (Canvas(4), Canvas(None))),
        ("lacuna-tiny-sdar", BlockTransition(4, Compress(2, 5)), (Blocks(4),)),
    ],
)
def test_the_control_differs_in_the_objective_alone(name: str, own: object, plain: tuple[object, ...]) -> None:
    config = DistillConfig(source=EMBEDDED / name, compress=Compress(2, 5), replay_share=0.2)
    attempts = [attempt(index) for index in range(3)]
    distilled = distill_job(config, HEADING, attempts)
    control = distill_job(replace(config, control=True), HEADING, attempts)
    shares = [
        {share.objective: share.weight for share in job.curriculum.stages[0].mixture} for job in (distilled, control)
    ]
    replayed = {Replay(objective): pytest.approx(0.2 / len(plain)) for objective in plain}
    assert shares[0] == {own: pytest.approx(0.8)} | replayed
    assert shares[1] == {objective: pytest.approx(0.8 / len(plain)) for objective in plain} | replayed
    assert distilled.budget == control.budget
    assert distilled.optimisation == control.optimisation
    assert distilled.curriculum.warmup_steps == control.curriculum.warmup_steps
    assert distilled.files.config == control.files.config
    for one, other in zip(distilled.model.parameters(), control.model.parameters(), strict=True):
        assert one.requires_grad
        assert (one == other).all()
    for sample in range(4):
        first, second = (job.samples.take_for(CanvasTransition()) for job in (distilled, control))
        assert first == second, sample


def test_long_rows_get_lengths_of_their_own() -> None:
    spec = distill_job(DistillConfig(source=EMBEDDED / "lacuna-tiny-llada"), HEADING, [attempt(0)]).model.spec
    long = EncodedSample([5] * 1500, [6, 0], (6, 0), (1, 1))
    lengths = row_lengths(spec, [long])
    assert list(lengths) == sorted(set(lengths))
    assert lengths[-1] >= 1500
    assert max(np.diff(lengths)) <= 128


def test_networks_with_shifted_logits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training import distill

    opened = distill.open_checkpoint(EMBEDDED / "lacuna-tiny-llada")
    shifted = replace(opened, spec=replace(opened.spec, logit_shift=1))
    monkeypatch.setattr(distill, "open_checkpoint", lambda source: shifted)
    with pytest.raises(UnsupportedModelError, match="shifted"):
        distill_job(DistillConfig(source=EMBEDDED / "lacuna-tiny-llada"), HEADING, [attempt(0)])
    assert files_like(opened).config["architectures"] == ["LLaDAModelLM"]


@pytest.mark.parametrize(("field", "value"), [("replay_share", 1.0), ("answer_tokens", (5, 2))])
def test_settings_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        DistillConfig(source=EMBEDDED, **{field: value})


@pytest.mark.slow
def test_from_prompts_to_a_checkpoint_that_the_engine_serves(tmp_path: Path) -> None:
    """Collect, train with transitions and as a control, and report: all by the commands."""
    shared = ["--steps", "3", "--no-compile", "--tokens-per-step", "512"]
    invoke("distill", "--from", "lacuna-tiny-llada", "-o", tmp_path / "td", "--prompts", "12", *shared)
    collected = tmp_path / "td.trajectories.jsonl"
    assert len(collected.read_text().splitlines()) == 13
    invoke(
        "distill",
        "--from",
        "lacuna-tiny-llada",
        "-o",
        tmp_path / "control",
        "--control",
        "--trajectories",
        collected,
        *shared,
    )
    records = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("td", "control")]
    assert [record["objective"] for record in records] == ["compressed transitions", "random masks"]
    assert records[0]["trajectories"] == records[1]["trajectories"] > 6
    page = invoke(
        "distill-report",
        *("--teacher", "lacuna-tiny-llada", "--distilled", tmp_path / "td", "--control", tmp_path / "control"),
        *("--kind", "fact", "-n", "4", "--out", tmp_path / "report"),
    )
    assert "4 held-out prompts" in page
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.md", "report.json", "report.svg"}


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
