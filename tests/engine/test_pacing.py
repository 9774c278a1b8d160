"""Long prompts beside requests that decode: shares, turns, and that nobody starves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cache.policy import IntArray
from engine.pacing import MAX_PASS_WAIT, ForwardBudget, Pacer, handicap
from tests.helpers.engines import Rig, ScriptedExecutor, make_request, scripted

BUDGET = ForwardBudget(tokens=256, long_prefill=8)


def ints(*values: int) -> IntArray:
    return np.array(values, np.int64)


def test_long_prompts_share_half_of_what_decodes_in_turns() -> None:
    needed, least = ints(30, 20, 100, 100), ints(4, 4, 4, 4)
    chunks = Pacer(BUDGET).chunks(needed, least, np.array([False, False, True, True]), ints(0, 0, 7, 5))
    assert chunks.tolist() == [256, 256, 0, 25]


def test_where_nothing_decodes_prompts_get_the_whole_forward() -> None:
    chunks = Pacer(BUDGET).chunks(ints(100, 200, 50), ints(4, 4, 4), np.ones(3, np.bool_), ints(1, 2, 3))
    assert chunks.tolist() == [100, 156, 0]


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(1, 16), st.booleans(), st.integers(0, 9)), min_size=1, max_size=12
    )
)
def test_chunks_keep_to_the_share_and_the_first_prompt_always_gets_a_part(
    items: list[tuple[int, int, bool, int]],
) -> None:
    needed, least = ints(*(max(one[0], one[1]) for one in items)), ints(*(one[1] for one in items))
    in_parts, turn = np.array([one[2] for one in items]), ints(*(one[3] for one in items))
    chunks = Pacer(BUDGET).chunks(needed, least, in_parts, turn)
    assert (chunks[~in_parts] == BUDGET.tokens).all()
    if in_parts.any():
        first = np.flatnonzero(in_parts)[np.argsort(turn[in_parts], kind="stable")[0]]
        assert chunks[first] >= least[first]
        assert ((chunks[in_parts] == 0) | (chunks[in_parts] >= least[in_parts])).all()
        decoding = int(needed[~in_parts].sum())
        assert chunks[in_parts].sum() <= max(BUDGET.share(decoding), least[first])


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 40)), min_size=1, max_size=10))
def test_a_forward_fits_its_budget_and_is_never_empty(items: list[tuple[int, int]]) -> None:
    cost, turn = ints(*(one[0] for one in items)), ints(*(one[1] for one in items))
    chosen = Pacer(BUDGET).choose(cost, turn)
    assert len(chosen) == 1 or cost[chosen].sum() <= BUDGET.tokens
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_a_long_pass_waits_until_its_share_is_saved_up() -> None:
    pacer, cost = Pacer(BUDGET), ints(10, 10, 200)
    ran = [2 in pacer.choose(cost, ints(0, 0, 0)) for _ in range(60)]
    assert [forward for forward, long in enumerate(ran, 1) if long] == [20, 40, 60], "10 positions of share each"


def test_a_long_pass_waits_no_more_than_a_bound() -> None:
    pacer = Pacer(ForwardBudget(tokens=10_000, long_prefill=8))
    ran = [1 in pacer.choose(ints(4, 9000), ints(0, 0)) for _ in range(100)]
    assert [forward for forward, long in enumerate(ran, 1) if long] == [24, 48, 72, 96]
    assert MAX_PASS_WAIT > 20, "fewer than one in twenty steps of the others is long"


def test_long_passes_among_themselves_do_not_wait() -> None:
    assert Pacer(BUDGET).choose(ints(150, 140), ints(1, 0)).tolist() == [1]


def test_a_priority_is_worth_some_forwards_and_no_more() -> None:
    assert handicap(-1) < handicap(0) < handicap(1) < handicap(2**31 - 1) < 200


def plans_of(rig: Rig) -> list[dict[int, int]]:
    """Positions per slot of each forward."""
    assert isinstance(rig.executor, ScriptedExecutor)
    return [
        dict(zip(*np.unique(plan.rows.tokens()[0], return_counts=True), strict=True)) for plan in rig.executor.plans
    ]


@pytest.mark.parametrize("fused", [True, False])
def test_steps_of_small_requests_stay_short_while_a_long_prompt_is_computed(fused: bool) -> None:
    rig = scripted("block_causal", max_model_len=512, token_budget=512, long_prefill_budget=8, fused=fused)
    for name in ("a", "b"):
        rig.engine.add_request(make_request(name, [65] * 3, max_tokens=24))
    rig.engine.step()
    rig.engine.add_request(make_request("long", [90] * 300, max_tokens=4))
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    plans = plans_of(rig)
    beside = [plan for plan in plans if 2 in plan and len(plan) > 1]
    assert len(beside) >= 10
    assert all(plan[2] <= 8 for plan in beside)
    assert all({0, 1} <= set(plan) for plan in beside[:-2]), "decoding requests come first"
    alone = [plan for plan in plans if set(plan) == {2}]
    assert max(plan[2] for plan in alone) > 100, "and nothing is held back when they are gone"


def test_whole_canvas_passes_take_turns_with_small_steps() -> None:
    rig = scripted("bidirectional", max_model_len=512, token_budget=512, long_prefill_budget=8)
    rig.engine.add_request(make_request("small", [65] * 3, max_tokens=60))
    rig.engine.step()
    rig.engine.add_request(make_request("long", [66] * 300, max_tokens=8))
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    long_passes = [number for number, plan in enumerate(plans_of(rig)) if plan.get(1, 0) > 128]
    assert 10 <= long_passes[0] <= MAX_PASS_WAIT + 1
    rig.check_empty()
