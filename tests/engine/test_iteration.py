"""What each slot does next: layout of canvases, token budget, stops and limits, in fused and parity plans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cache.policy import IntArray
from engine.decoding.decoder import FORCE_AFTER_BLOCK_LENGTHS
from engine.layout import canvas_length, lay_out
from engine.plan import IterationPlan
from tests.helpers.engines import EOS, MASK, Rig, ScriptedExecutor, drive, letter, make_request, scripted

PROMPT = st.integers(1, 20)


def plans(rig: Rig) -> list[IterationPlan]:
    assert isinstance(rig.executor, ScriptedExecutor)
    return rig.executor.plans


def slots_in(plan: IterationPlan) -> set[int]:
    return set(plan.rows.slot_R.tolist())


@given(PROMPT, st.integers(1, 20), st.integers(1, 8))
def test_a_bidirectional_canvas_ends_with_the_request(prompt: int, tokens: int, block: int) -> None:
    canvas, first = lay_out([7] * prompt, [MASK] * tokens, block, MASK, origin=prompt, aligned=False)
    assert canvas.tolist() == [7] * prompt + [MASK] * tokens
    assert first == (prompt, min(prompt + block, prompt + tokens))
    assert canvas_length(prompt, tokens, block, aligned=False) == len(canvas)


@given(PROMPT, st.integers(1, 20), st.integers(1, 8))
def test_a_block_causal_canvas_is_aligned_to_blocks(prompt: int, tokens: int, block: int) -> None:
    canvas, (start, end) = lay_out([7] * prompt, [MASK] * tokens, block, MASK, origin=0, aligned=True)
    assert len(canvas) % block == 0
    assert 0 <= len(canvas) - (prompt + tokens) < block
    assert (start % block, end - start) == (0, block)
    assert MASK not in canvas[:start]
    assert MASK in canvas[start:end]
    assert canvas_length(prompt, tokens, block, aligned=True) == len(canvas)


@pytest.mark.parametrize("pattern", ["bidirectional", "block_causal"])
def test_the_completion_has_exactly_max_tokens_even_inside_a_block(pattern: str) -> None:
    for tokens in range(1, 11):
        for prompt in (1, 3, 4, 5):
            rig = scripted(pattern)  # type: ignore[arg-type]
            ids = [65] * prompt
            result = drive(rig.engine, [make_request("a", ids, max_tokens=tokens)])["a"]
            assert result.finish_reason == "length"
            assert list(result.token_ids) == [letter(ids, prompt + i) for i in range(tokens)]
            rig.check_empty()


@pytest.mark.parametrize("fused", [True, False])
def test_a_stop_id_ends_it_and_nothing_after_it_is_seen(fused: bool) -> None:
    def token_at(canvas: IntArray, position: int) -> int:
        return EOS if position == 13 else letter(canvas, position)

    rig = scripted("block_causal", ScriptedExecutor(token_at), fused=fused)
    result = drive(rig.engine, [make_request("a", [65] * 6, max_tokens=40)])["a"]
    assert (result.finish_reason, result.stop_reason) == ("stop", EOS)
    assert list(result.token_ids) == [letter([65], position) for position in range(6, 13)]
    rig.check_empty()


class _RightToLeft(ScriptedExecutor):
    """Fills the last mask of a block first."""

    def execute(self, plan: IterationPlan):  # type: ignore[no-untyped-def]
        before = {slot: canvas.copy() for slot, canvas in self.canvases.items()}
        before |= {admission.slot: admission.tokens.copy() for admission in plan.admitted}
        result = super().execute(plan)
        for n, slot in enumerate(plan.decoded.slot_N.tolist()):
            start, end = int(plan.decoded.start_N[n]), int(plan.decoded.end_N[n])
            canvas = before[slot]
            last = max(position for position in range(start, end) if canvas[position] == MASK)
            canvas[last] = self.token_at(canvas, last)
            self.canvases[slot] = canvas
            result.tokens_NB[n, : end - start] = canvas[start:end]
        return result


def test_a_stop_id_behind_masks_ends_it_only_when_they_are_filled() -> None:
    """Right to left: the stop id at 5 is there at once, but 4 is filled only at the fourth step."""

    def token_at(canvas: IntArray, position: int) -> int:
        return EOS if position in {5, 7} else letter(canvas, position)

    rig = scripted("block_causal", _RightToLeft(token_at))
    result = drive(rig.engine, [make_request("a", [65] * 4, max_tokens=8)])["a"]
    assert result.token_ids == (letter([65], 4),)
    assert result.denoising_steps == 4
    assert result.finish_reason == "stop"


def test_it_ends_as_soon_as_everything_before_the_stop_id_is_filled() -> None:
    def token_at(canvas: IntArray, position: int) -> int:
        return EOS if position == 5 else letter(canvas, position)

    rig = scripted("block_causal", ScriptedExecutor(token_at, per_step=2))
    assert drive(rig.engine, [make_request("a", [65] * 4, max_tokens=8)])["a"].denoising_steps == 1


def test_stop_ids_in_the_prompt_or_behind_the_limit_do_not_count() -> None:
    def token_at(canvas: IntArray, position: int) -> int:
        return EOS if position == 7 else letter(canvas, position)

    rig = scripted("block_causal", ScriptedExecutor(token_at))
    result = drive(rig.engine, [make_request("a", [65, EOS, EOS, EOS, 65, EOS], max_tokens=1)])["a"]
    assert (result.finish_reason, len(result.token_ids)) == ("length", 1)


def test_fused_forwards_are_denoising_steps_and_parity_adds_prefill_and_commits() -> None:
    """A prompt of 2 blocks and 3 generated blocks of 4, two tokens a step: 6 denoising steps."""
    expected = {True: (6, 6), False: (6 + 1 + 3, 6)}
    for fused, (forwards, denoising) in expected.items():
        rig = scripted("block_causal", fused=fused)
        rig.engine.add_request(make_request("a", [65] * 8, max_tokens=12))
        last = [output for _ in range(20) for output in rig.engine.step()][-1]
        assert last.finished
        assert (last.usage.forwards, last.usage.denoising_steps) == (forwards, denoising)
        assert len(plans(rig)) == forwards
        computed = 8 + 6 * 4 + 2 * 4 + (0 if fused else 4)
        assert last.usage.positions_computed == computed


def test_a_long_prompt_is_computed_in_chunks_of_the_token_budget() -> None:
    rig = scripted("block_causal", token_budget=16)
    result = drive(rig.engine, [make_request("a", [65] * 50, max_tokens=6)])["a"]
    lengths = [int((plan.rows.q_end_R - plan.rows.q_start_R).sum()) for plan in plans(rig)]
    assert max(lengths) == 16
    assert lengths[:3] == [16, 16, 16]
    assert result.denoising_steps == len(plans(rig)) - 3
    assert list(result.token_ids) == [letter([65], position) for position in range(50, 56)]


def test_no_forward_exceeds_the_token_budget_and_everybody_gets_a_turn() -> None:
    rig = scripted("bidirectional", token_budget=40, max_num_seqs=6)
    for index in range(6):
        rig.engine.add_request(
            make_request(str(index), [65 + index] * 8, rig.engine, max_tokens=8, strategy={"cache": "none"})
        )
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    assert all(len(plan.rows.tokens()[0]) <= 40 for plan in plans(rig))
    turns = [sorted(slots_in(plan)) for plan in plans(rig)[:3]]
    assert sorted(slot for turn in turns for slot in turn) == list(range(6))


def test_a_stream_of_new_small_requests_does_not_starve_a_large_one() -> None:
    rig = scripted("bidirectional", token_budget=40, max_num_seqs=3)
    large = make_request("large", [65] * 20, rig.engine, max_tokens=20, strategy={"cache": "none"})
    rig.engine.add_request(large)
    for index in range(200):
        if index >= 2:  # the large one is on its way when the small ones begin to come
            rig.engine.add_request(make_request(f"small-{index}", [66], max_tokens=1))
        if any(output.request_id == "large" and output.finished for output in rig.engine.step()):
            return
    raise AssertionError("the large request starves")


@pytest.mark.parametrize("decoder", ["low_confidence", "sequential"])
def test_a_block_takes_no_more_steps_than_its_bound(decoder: str) -> None:
    """A rank whose decoder fills nothing: the plan forces the block after its last allowed step."""
    rig = scripted("block_causal", ScriptedExecutor(per_step=0))
    strategy = {"decoder": decoder, "steps": 3, "block_length": 4}
    result = drive(rig.engine, [make_request("a", [65] * 4, rig.engine, max_tokens=4, strategy=strategy)])["a"]
    assert result.denoising_steps == FORCE_AFTER_BLOCK_LENGTHS * 4 + 3 + 1


def test_guided_requests_compute_every_row_twice_and_decide_once() -> None:
    rig = scripted("block_causal")
    strategy = {"cfg_scale": 1.0}
    rig.engine.add_request(make_request("a", [65] * 6, rig.engine, max_tokens=4, strategy=strategy))
    rig.engine.step()
    plan = plans(rig)[0]
    assert len(plan.admitted) == 2
    twin = next(admission for admission in plan.admitted if admission.decoding is None)
    assert twin.tokens.tolist() == [MASK] * 12
    own, other = (
        {name: column[plan.rows.slot_R == slot].tolist() for name, column in columns(plan).items()}
        for slot in (plan.decoded.slot_N[0], twin.slot)
    )
    assert own == other
    assert len(plan.decoded) == 1


def columns(plan: IterationPlan) -> dict[str, IntArray]:
    rows = plan.rows
    return {name: getattr(rows, name) for name in ("q_start_R", "q_end_R", "kv_start_R", "kv_end_R")}


def test_nothing_running_is_no_plan() -> None:
    rig = scripted()
    assert rig.iteration.plan() is None
    assert rig.engine.step() == []
    assert plans(rig) == []
    assert not np.any(rig.slots.running)
