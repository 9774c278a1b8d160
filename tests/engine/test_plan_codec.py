"""Plans survive the way to the other ranks: every field, type and value."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.plan import IterationPlan, LengthProbes, Rows, SoftInputs, Splice
from engine.plan_codec import decode_plan, encode_plan
from tests.helpers.engines import ScriptedExecutor, make_request, scripted


def same(a: Any, b: Any) -> bool:
    """Equal in type, field by field; nan equals nan."""
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype == np.float32)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    return bool(a == b)


def recorded(pattern: Any, *requests: Any, **options: Any) -> list[IterationPlan]:
    """The plans of an engine that runs these requests together."""
    executor = ScriptedExecutor()
    rig = scripted(pattern, executor, **options)
    for number, request in enumerate(requests):
        rig.engine.add_request(make_request(f"r{number}", [65 + number] * 5, rig.engine, **request))
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    return executor.plans


BIDIRECTIONAL = recorded(
    "bidirectional",
    {"max_tokens": 12, "strategy": {"decoder": "threshold", "cache": "dual", "cfg_scale": 1.5}, "seed": 2**63 - 1},
    {"max_tokens": 9, "temperature": 0.7, "top_p": 0.9, "strategy": {"decoder": "klass", "smoothing_weight": 0.3}},
    {"max_tokens": 8, "logit_bias": {3: -2.5}, "strategy": {"banned_tokens": [7, 9], "deferred_tokens": [257]}},
    {"max_tokens": 16, "strategy": {"cache": "drift", "block_length": 4}},
    max_num_seqs=6,
)
BLOCK_CAUSAL = recorded("block_causal", {"max_tokens": 12}, {"max_tokens": 5, "strategy": {"credit_alpha": 0.7}})


@pytest.mark.parametrize("plans", [BIDIRECTIONAL, BLOCK_CAUSAL], ids=["bidirectional", "block_causal"])
def test_recorded_plans_come_back_as_they_were(plans: list[IterationPlan]) -> None:
    assert len(plans) > 3
    for plan in plans:
        assert same(decode_plan(encode_plan(plan)), plan)


def test_the_recorded_plans_use_every_optional_part() -> None:
    plans = [*BIDIRECTIONAL, *BLOCK_CAUSAL]
    assert any(plan.admitted for plan in plans)
    assert any(plan.soft is not None for plan in plans)
    assert any(plan.drift is not None for plan in plans)


vectors = st.integers(0, 5).flatmap(
    lambda size: st.tuples(
        arrays(np.int64, size, elements=st.integers(-(2**63), 2**63 - 1)),
        arrays(np.float32, size, elements=st.floats(width=32)),
        arrays(np.bool_, size),
    )
)


@settings(max_examples=20, deadline=None)
@given(vectors)
def test_any_numbers_come_back(parts: tuple[Any, Any, Any]) -> None:
    ints, floats, flags = parts
    plan = replace(
        BLOCK_CAUSAL[0],
        rows=Rows(ints, ints, ints, ints, ints),
        soft=SoftInputs(ints, ints, ints, ints, flags),
        decoded=replace(
            BLOCK_CAUSAL[0].decoded, probes=LengthProbes(ints, ints, ints, ints, ints, ints, floats), force_N=flags
        ),
        splices=(Splice(1, 2, 0, ints, 9),),
    )
    assert same(decode_plan(encode_plan(plan)), plan)


def test_a_plan_without_admissions_is_small() -> None:
    plan = BLOCK_CAUSAL[-1]
    assert not plan.admitted
    assert len(encode_plan(plan)) < 2048


def test_a_decoded_plan_may_be_written_to_and_shares_nothing_with_the_message() -> None:
    message = bytearray(encode_plan(BLOCK_CAUSAL[0]))
    plan = decode_plan(memoryview(message))
    message[:] = bytes(len(message))
    assert same(plan, BLOCK_CAUSAL[0])
    assert plan.rows.slot_R.flags.writeable
    assert plan.decoded.force_N.flags.writeable


def test_a_plan_of_another_version_is_refused() -> None:
    message = bytearray(encode_plan(BLOCK_CAUSAL[0]))
    message[0] = 77
    with pytest.raises(ValueError, match="version 77"):
        decode_plan(bytes(message))
