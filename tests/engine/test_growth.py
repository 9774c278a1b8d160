"""Canvases that change their length while they run: what grows, what stays, and that every copy agrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from engine.cache.policy import FloatArray, IntArray
from engine.growth import CanvasGrowth, beginning
from engine.length import AdaptiveLength
from engine.llm_engine import LLMEngine
from engine.plan import IterationPlan, LengthReading, StepResult
from engine.sequence import GenerationRequest
from engine.slots import SlotTable, SlotTraits
from tests.helpers.engines import EOS, MASK, Rig, ScriptedExecutor, drive, letter, load, make_request, scripted

PROMPT = [65] * 6
TRAITS = SlotTraits(
    policy=0,
    decoder=0,
    guide_slot=-1,
    max_steps=16,
    edits=False,
    drawn=False,
    filtered=False,
    deferred=False,
    watched=False,
    transforms=0,
)
RULE: Mapping[str, object] = {"initial_length": 8, "length_growth": 4, "expansion": 4, "cache": "dual"}


@dataclass(slots=True)
class Sizing(ScriptedExecutor):
    """Sees the end in canvases of at least ``enough`` generated positions, and is in doubt about the first mask of a
    block that it has not filled for its first ``doubts`` readings."""

    enough: int = 0
    doubts: int = 0

    def execute(self, plan: IterationPlan) -> StepResult:
        probes = plan.decoded.probes
        before = {slot: canvas.copy() for slot, canvas in self.canvases.items()}
        result = ScriptedExecutor.execute(self, plan)
        if probes is None or not len(probes):
            return result
        reading = LengthReading(*(np.full(len(plan.decoded), np.nan, np.float32) for _ in range(2)), self._none(plan))
        for p, n in enumerate(probes.block_P):
            sure = probes.end_P[p] - probes.start_P[p] >= self.enough
            reading.eos_N[n] = 0.6 if sure else 0.3
            masks = np.flatnonzero(result.tokens_NB[n] == MASK)
            if reading.eos_N[n] < probes.hold_below_P[p]:
                self._take_back(plan, result, before, int(n))
            elif len(masks) and self.doubts > 0:
                self.doubts -= 1
                reading.doubt_N[n], reading.doubt_at_N[n] = 0.01, masks[0]
        return replace(result, length=reading)

    def _none(self, plan: IterationPlan) -> IntArray:
        return np.zeros(len(plan.decoded), np.int64)

    def _take_back(self, plan: IterationPlan, result: StepResult, before: Mapping[int, IntArray], n: int) -> None:
        slot, start = int(plan.decoded.slot_N[n]), int(plan.decoded.start_N[n])
        admitted = {admission.slot: admission.tokens for admission in plan.admitted}
        canvas = admitted[slot].copy() if slot in admitted else before[slot]
        for splice in plan.splices:
            if splice.slot == slot and slot not in admitted:
                canvas = np.concatenate((canvas, splice.tokens))
        self.canvases[slot] = canvas
        width = int(plan.decoded.end_N[n]) - start
        result.tokens_NB[n, :width] = canvas[start : start + width]


def sized(executor: Sizing, **options: object) -> Rig:
    return scripted("bidirectional", executor, **options)  # type: ignore[arg-type]


def ask(rig: Rig, name: str = "a", prompt: list[int] = PROMPT, **options: object) -> GenerationRequest:
    strategy = dict(RULE) | options.pop("strategy", {})  # type: ignore[operator]
    return make_request(name, prompt, rig.engine, strategy=strategy, **options)


def lengths(rig: Rig) -> list[int]:
    """Positions of each forward."""
    assert isinstance(rig.executor, Sizing)
    return [int((plan.rows.q_end_R - plan.rows.q_start_R).sum()) for plan in rig.executor.plans]


def ends_at(position: int) -> Sizing:
    return Sizing(lambda canvas, at: EOS if at >= position else letter(canvas, at))


def test_the_canvas_grows_until_the_end_is_in_sight_and_then_decides() -> None:
    executor = ends_at(16)
    executor.enough = 16
    rig = sized(executor)
    result = drive(rig.engine, [ask(rig, max_tokens=50)])["a"]
    assert list(result.token_ids) == [letter(PROMPT, position) for position in range(6, 16)]
    assert lengths(rig)[:4] == [6 + 8, 6 + 12, 6 + 16, 4], "two forwards only measured, the third also decided"
    assert result.finish_reason == "stop"
    assert result.denoising_steps == len(lengths(rig)) - 2
    rig.check_empty()


def test_growth_ends_at_max_tokens() -> None:
    rig = sized(Sizing(enough=1000))
    result = drive(rig.engine, [ask(rig, max_tokens=22)])["a"]
    assert max(lengths(rig)) == 6 + 22
    assert (result.finish_reason, len(result.token_ids)) == ("length", 22)
    rig.check_empty()


def test_an_answer_longer_than_expected_goes_on_block_by_block() -> None:
    rig = sized(Sizing())
    result = drive(rig.engine, [ask(rig, max_tokens=21)])["a"]
    assert list(result.token_ids) == [letter(PROMPT, position) for position in range(6, 27)]
    assert result.finish_reason == "length"
    rig.check_empty()


def test_unfused_a_request_ends_with_its_canvas_behind_a_tail_of_end_of_text() -> None:
    rig = sized(Sizing(enough=12), fused=False)
    request = ask(rig, max_tokens=40, ignore_eos=True, strategy={"eos_window": 6})
    result = drive(rig.engine, [request])["a"]
    assert list(result.token_ids) == [letter(PROMPT, at) for at in range(6, 18)] + [EOS] * 3
    assert lengths(rig)[:3] == [6 + 8, 6 + 12, 6 + 12 + 3], "every measurement is a forward of its own"


def test_a_doubtful_position_makes_room_where_it_stands() -> None:
    executor = Sizing(doubts=1, per_step=1)
    rig = sized(executor, token_budget=512)
    result = drive(rig.engine, [ask(rig, max_tokens=40, stream="step")])["a"]
    (splice,) = executor.plans[1].splices
    assert (splice.at, splice.removed, splice.tokens.tolist()) == (7, 1, [MASK] * 4)
    assert lengths(rig)[:2] == [6 + 8, 6 + 11], "the next forward refreshes the longer canvas"
    steps = [int(plan.decoded.step_N[0]) for plan in executor.plans[:4]]
    assert steps == [0, 0, 1, 2], "the block begins anew, and so do memories of its places"
    assert len(result.token_ids) == 40


def test_what_has_been_shown_never_moves() -> None:
    executor = Sizing(doubts=3, per_step=1)
    rig = sized(executor)
    rig.engine.add_request(ask(rig, max_tokens=30, stream="step"))
    shown: list[int] = []
    while rig.engine.has_unfinished_requests():
        for output in rig.engine.step():
            shown += output.token_ids
            assert output.canvas is not None
            assert list(output.canvas.token_ids[: len(shown)]) == shown
            assert len(output.canvas.token_ids) <= 30
    assert len(shown) == 30
    assert sum(len(plan.splices) for plan in executor.plans) >= 3


def test_room_is_capped_by_max_tokens() -> None:
    rig = sized(Sizing(doubts=5, per_step=1))
    result = drive(rig.engine, [ask(rig, max_tokens=9)])["a"]
    assert len(result.token_ids) == 9
    assert max(lengths(rig)) == 6 + 9


@pytest.mark.parametrize(("stop_at", "splices"), [(7, 0), (9, 1)])
def test_no_room_is_made_behind_a_stop_id(stop_at: int, splices: int) -> None:
    slots = SlotTable(1, 40, MASK)
    slots.open(0, np.array([65] * 6 + [MASK] * 8), 6, 30, (6, 10), 4, [EOS], TRAITS, {})
    slots.tokens[0, stop_at] = EOS
    growth = CanvasGrowth(slots, EOS, 0, fused=True)
    growth.open(0, AdaptiveLength.Params(initial_length=8))
    doubt = LengthReading(np.array([0.6], np.float32), np.array([0.01], np.float32), np.array([2]))
    growth.expand(np.array([0]), doubt, np.array([True]))
    assert len(growth.take_splices()) == splices
    assert slots.canvas_len[0] == 14 + 7 * splices


def test_a_guided_request_and_its_twin_grow_together() -> None:
    executor = Sizing(enough=12, doubts=1, per_step=1)
    rig = sized(executor)
    result = drive(rig.engine, [ask(rig, max_tokens=20, strategy={"cfg_scale": 1.0})])["a"]
    assert len(result.token_ids) == 20
    spliced = [splice for plan in executor.plans for splice in plan.splices]
    pairs = list(zip(spliced[::2], spliced[1::2], strict=True))
    assert pairs
    assert all((own.at, own.removed) == (twin.at, twin.removed) and own.slot != twin.slot for own, twin in pairs)


def test_an_aborted_request_leaves_no_change_to_its_successor() -> None:
    executor = Sizing(enough=1000)
    rig = sized(executor, max_num_seqs=1)
    rig.engine.add_request(ask(rig, "gone", max_tokens=40))
    rig.engine.step()
    rig.engine.abort("gone")
    result = drive(rig.engine, [make_request("next", PROMPT, max_tokens=10)])["next"]
    assert list(result.token_ids) == [letter(PROMPT, position) for position in range(6, 16)]
    assert not any(plan.splices for plan in executor.plans)
    rig.check_empty()


@pytest.fixture(scope="module")
def engine(llada_folder: Path) -> LLMEngine:
    return load(llada_folder, max_num_seqs=7)


def growing(engine: LLMEngine) -> list[GenerationRequest]:
    """Requests that grow at their ends and in their middle, beside one that does not. The random network never sees an
    end of text (``eos_confidence`` 0 begins at once) and is always in doubt."""
    sizes: list[dict[str, object]] = [
        {"cache": "dual", "initial_length": 6, "eos_confidence": 0.0, "expand_confidence": 1.0, "expansion": 3},
        {"cache": "none", "initial_length": 4, "length_growth": 5, "expand_confidence": 0.0},
        {"cache": "drift", "initial_length": 5, "eos_confidence": 0.0, "expand_confidence": 0.6, "expansion": 2},
        {"cache": "prefix", "initial_length": 7, "cfg_scale": 0.5, "length_growth": 2, "expand_confidence": 1.0},
        {"cache": "vicinity", "prefix_look": 4, "after_look": 4},
        {
            "cache": "dual",
            "initial_length": 4,
            "eos_confidence": 0.0,
            "expand_confidence": 1.0,
            "smoothing_weight": 0.3,
        },
    ]
    return [
        make_request(
            f"{index}",
            [10 + index, 20, 30 + index],
            engine,
            strategy={"decoder": "threshold", "threshold": 0.4, "block_length": 5} | size,
            max_tokens=22 + index,
        )
        for index, size in enumerate(sizes)
    ]


def test_a_mixture_of_growing_canvases_equals_each_alone(engine: LLMEngine) -> None:
    alone = {}
    for one in growing(engine):
        alone |= drive(engine, [one])
    assert drive(engine, growing(engine)) == alone
    assert drive(engine, growing(engine)[::-1], every=2) == alone
    assert [len(alone[str(index)].token_ids) for index in range(6)] == [22, 23, 24, 25, 26, 27]


def test_host_and_device_hold_the_same_canvas_after_every_step(engine: LLMEngine) -> None:
    core = engine._core
    slots, runner = core._iteration.slots, core._executor._runner  # type: ignore[attr-defined]
    for one in growing(engine):
        engine.add_request(one)
    lengths = set()
    while engine.has_unfinished_requests():
        engine.step()
        pending = {splice.slot for splice in core._iteration._growth._splices}
        for slot in np.flatnonzero(slots.running):
            lengths.add(int(slots.canvas_len[slot]))
            if slot not in pending:
                end = slots.canvas_len[slot]
                device: IntArray = runner._canvas.tokens[slot, :end].numpy()
                assert device.tolist() == slots.tokens[slot, :end].tolist()
    assert len(lengths) > 8, "the canvases grew"


def test_replayed_text_stays_although_its_block_may_be_decided_otherwise(engine: LLMEngine) -> None:
    (whole, *_) = growing(engine)
    expected = drive(engine, [whole])["0"].token_ids
    rest = replace(whole, generated=expected[:13], num_shown=12)
    completion = engine.validate(rest).completion_ids
    assert list(completion[:13]) == list(expected[:13])
    assert set(completion[13:]) == {engine.spec.mask_token_id}
    outputs = []
    engine.add_request(rest)
    while engine.has_unfinished_requests():
        outputs += engine.step()
    tokens = [token_id for output in outputs for token_id in output.token_ids]
    assert len(tokens) == 22 - 12
    assert tokens[0] == expected[12]


def test_probabilities_stay_with_their_tokens() -> None:
    rig = sized(Sizing(doubts=1, per_step=1))
    rig.engine.add_request(ask(rig, max_tokens=12))
    rig.engine.step()
    slot = int(np.flatnonzero(rig.slots.running)[0])
    own: FloatArray = rig.slots.probability[slot]
    filled = rig.slots.tokens[slot, 6:18] != MASK
    assert (~np.isnan(own[6:18]) == filled).all()
    assert filled.sum() == 1


@pytest.mark.parametrize(
    ("given", "initial_length", "length"), [([], 4, 4), ([], 40, 9), ([5, 6], 2, 3), ([5, 6], 6, 6), ([5] * 8, 2, 9)]
)
def test_a_canvas_begins_with_what_is_given_and_at_least_one_mask(
    given: list[int], initial_length: int, length: int
) -> None:
    completion = [*given, *[MASK] * (9 - len(given))]
    rule = AdaptiveLength.Params(initial_length=initial_length)
    assert list(beginning(completion, rule, MASK)) == completion[:length]
    assert list(beginning(completion, None, MASK)) == completion
