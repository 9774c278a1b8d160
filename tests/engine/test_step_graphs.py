"""Recorded steps and several steps per look of the host give every request the tokens of plain steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine.build import assemble_core, usual_step
from engine.config import EngineConfig
from engine.core import EngineStats
from engine.decoding import DECODERS
from engine.executor import LocalExecutor
from engine.graphs import GraphBackend, ladder, rung
from engine.llm_engine import LLMEngine
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import load_model
from engine.models.spec import DiffusionLM
from engine.outputs import RequestOutput
from engine.plan import IterationPlan, StepResult
from engine.plan_codec import decode_plan, encode_plan
from engine.sequence import GenerationRequest
from engine.tokenizer import MissingTokenizer
from tests.helpers.engines import Outcome, drive, make_request, outcome
from tests.helpers.graphs import TapeGraphs
from tests.helpers.mixture import KNOBS

CPU = torch.device("cpu")
FAMILIES = {"llada_folder": "dual", "sdar_folder": "block"}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> DiffusionLM:
    path: Path = request.getfixturevalue(request.param)
    return load_model(path, open_checkpoint(path, EngineConfig(block_length=4)).spec, torch.float32, CPU)


def make_engine(model: DiffusionLM, graphs: GraphBackend | None = None, **options: object) -> LLMEngine:
    config = EngineConfig(**({"max_num_seqs": 4, "max_model_len": 64, "device": "cpu"} | options))  # type: ignore[arg-type]
    core = assemble_core(model, config, 64, graphs=graphs)
    return LLMEngine(core, model.spec, MissingTokenizer(), config, 64)


def requests(engine: LLMEngine, decoder: str, **options: object) -> list[GenerationRequest]:
    """Three of different lengths, which end at different steps."""
    strategy = {"decoder": decoder, "block_length": 4, **KNOBS.get(decoder, {}), **options}
    strategy.pop("neighbour_penalty", None)
    settings = {"max_tokens": 8, "strategy": strategy}
    prompts = [5, 6], [7], [8, 9, 10]
    return [make_request(f"{decoder}-{n}", prompt, engine, seed=n, **settings) for n, prompt in enumerate(prompts)]


def outcomes(engine: LLMEngine, decoders: Sequence[str] = tuple(DECODERS)) -> tuple[dict[str, Outcome], EngineStats]:
    """The decoders, one after the other."""
    found: dict[str, Outcome] = {}
    for decoder in decoders:
        found |= drive(engine, requests(engine, decoder))
    return found, engine.stats()


@pytest.fixture(scope="module")
def plain(model: DiffusionLM) -> tuple[dict[str, Outcome], EngineStats]:
    return outcomes(make_engine(model))


@pytest.mark.parametrize(
    "decoders",
    [("threshold", "joint_threshold"), pytest.param(tuple(DECODERS), marks=pytest.mark.slow)],
    ids=["few", "all"],
)
def test_recorded_steps_give_the_same_tokens(
    model: DiffusionLM,
    plain: tuple[dict[str, Outcome], EngineStats],
    monkeypatch: pytest.MonkeyPatch,
    decoders: Sequence[str],
) -> None:
    """Every step is padded to four rows; every decoder but the one that needs the host between."""
    monkeypatch.setattr("engine.step_graphs.RECORD_AFTER", 1)
    monkeypatch.setattr("engine.step_graphs.ladder", lambda largest: (largest,))
    graphs = TapeGraphs()
    found, stats = outcomes(make_engine(model, graphs), decoders)
    assert found == {name: one for name, one in plain[0].items() if name.rpartition("-")[0] in decoders}
    assert stats.graph_forwards == graphs.replayed > stats.forwards / 3


def test_steps_of_one_look_are_replayed_one_after_the_other(model: DiffusionLM) -> None:
    """The usual step is recorded at load, for one to four rows; the buffer counts the steps. At this threshold a block
    takes a step per token: one that refreshes, or has the prompt, and three with the same rows."""
    usual = usual_step(model.spec, fused=True)
    graphs = TapeGraphs()
    engine, plain = make_engine(model, graphs, steps_per_look=3), make_engine(model)
    assert graphs.recorded == 4
    found, expected = (drive(one, requests(one, usual.decoder, threshold=1.0)) for one in (engine, plain))
    assert found == expected
    assert engine.stats().graph_forwards == graphs.replayed > 0
    assert graphs.recorded == 4


def test_other_ranks_take_the_same_steps_from_one_message(model: DiffusionLM) -> None:
    config = EngineConfig(max_num_seqs=4, max_model_len=64, device="cpu", steps_per_look=3)
    sent: list[IterationPlan] = []

    class Leading(LocalExecutor):
        def execute(self, plan: IterationPlan) -> StepResult:
            sent.append(decode_plan(encode_plan(plan)))
            return super().execute(plan)

    leader, follower = (assemble_core(model, config, 64, executor=kind)._executor for kind in (Leading, LocalExecutor))
    assert isinstance(leader, Leading)
    core = assemble_core(model, config, 64, executor=lambda _: leader)
    engine = LLMEngine(core, model.spec, MissingTokenizer(), config, 64)
    drive(engine, requests(engine, "threshold", threshold=1.0))
    for plan in sent:
        follower.execute(plan)
    assert max(plan.num_steps for plan in sent) > 1
    canvases = [executor._runner._canvas.tokens for executor in (leader, follower)]  # type: ignore[attr-defined]
    assert torch.equal(*canvases)


def test_abort_between_looks_and_arrivals_change_nobody(
    model: DiffusionLM, plain: tuple[dict[str, Outcome], EngineStats]
) -> None:
    engine = make_engine(model, steps_per_look=4)
    first, gone, late = requests(engine, "threshold")
    engine.add_request(first)
    engine.add_request(gone)
    engine.step()
    engine.step()
    engine.abort(gone.request_id)
    engine.add_request(late)
    increments: list[RequestOutput] = []
    while engine.has_unfinished_requests():
        increments += [one for one in engine.step() if one.request_id == late.request_id]
    assert outcome(increments) == plain[0][late.request_id]


@pytest.mark.parametrize("steps", [2, 4])
def test_several_steps_per_look_give_the_same_tokens(
    model: DiffusionLM, plain: tuple[dict[str, Outcome], EngineStats], steps: int
) -> None:
    found, stats = outcomes(make_engine(model, steps_per_look=steps))
    assert found == plain[0]
    assert stats.idle_positions > 0
    assert stats.positions - stats.idle_positions == plain[1].positions, "what is not waste is what plain steps compute"


def test_the_smallest_recorded_size_that_holds_the_rows() -> None:
    sizes = ladder(50)
    assert sizes == (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 50)
    assert [rung(sizes, wanted) for wanted in (1, 5, 33, 50, 51)] == [1, 6, 40, 50, None]
    assert ladder(1) == (1,)
