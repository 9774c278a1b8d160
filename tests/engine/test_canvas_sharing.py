"""A canvas in common is computed once, and nobody can tell by the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.outputs import RequestOutput
from engine.sequence import GenerationRequest
from tests.helpers.engines import ByWire, Rig, ScriptedExecutor, final, make_request, scripted

PROMPT = [(7 * n) % 280 for n in range(41)]
CANVAS = len(PROMPT) + 12
DUAL = {"decoder": "threshold", "threshold": 0.2, "cache": "dual", "block_length": 4}
STRATEGIES: Sequence[Mapping[str, object]] = (
    DUAL,
    DUAL | {"decoder": "low_confidence", "steps": 3, "threshold": None, "refresh_every": 2},
    DUAL | {"cache": "prefix", "block_length": 6},
    DUAL | {"cache": "vicinity", "warmup_steps": 2, "prefix_look": 3},
    DUAL | {"cache": "none"},
    DUAL | {"cache": "window"},
    DUAL | {"cache": "drift"},
    DUAL | {"cfg_scale": 0.5},
    DUAL | {"repetition_penalty": 1.3, "credit_alpha": 0.7},
    DUAL | {"smoothing_weight": 0.3},
    DUAL | {"initial_length": 6},
    {"decoder": "klass", "kl_threshold": 0.5, "cache": "dual", "block_length": 4},
)
"""Of these the first four and the one with logits transforms take over canvases; ``none`` can only be first."""


def mixed(engine: LLMEngine, salt: str = "") -> list[GenerationRequest]:
    """Every strategy on one prompt, drawn and not; some by themselves, for another canvas."""
    requests = []
    for number, options in enumerate(STRATEGIES):
        strategy = {name: value for name, value in options.items() if value is not None}
        drawn = {"temperature": 0.9, "seed": number} if number % 2 else {}
        requests.append(
            make_request(
                f"{number}{salt}",
                PROMPT,
                engine,
                strategy=strategy,
                max_tokens=12,
                cache_salt=salt,
                stream="final",
                **drawn,
            )
        )
    other = make_request(f"other{salt}", PROMPT, engine, strategy=DUAL, max_tokens=11, cache_salt=salt, stream="final")
    return [*requests, other]


def tokens(outputs: Mapping[str, RequestOutput]) -> dict[str, tuple[object, ...]]:
    return {
        name: (one.token_ids, one.finish_reason, one.usage.forwards, one.usage.denoising_steps)
        for name, one in outputs.items()
    }


@pytest.mark.parametrize("settings", [{}, {"page_size": 8, "steps_per_look": 4}], ids=str)
def test_outputs_with_and_without_sharing_are_equal(llada_folder: Path, settings: dict[str, int]) -> None:
    found: list[dict[str, RequestOutput]] = []
    for sharing in (False, True):
        config = EngineConfig(max_num_seqs=16, max_model_len=64, device="cpu", prefix_sharing=sharing, **settings)
        engine = LLMEngine.from_pretrained(llada_folder, config, executor=ByWire)
        found.append(final(engine, mixed(engine)) | final(engine, mixed(engine, "again")[:3]))
        assert engine.stats().cached_tokens == sum(one.usage.cached_tokens for one in found[-1].values())
    alone, shared = found
    assert tokens(shared) == tokens(alone)
    for name in alone:
        np.testing.assert_allclose(shared[name].logprobs, alone[name].logprobs, rtol=1e-4, atol=1e-5)
    cached = {name: one.usage.cached_tokens for name, one in shared.items()}
    assert cached == dict.fromkeys(cached, 0) | {
        **{"1": 41, "2": 41, "3": 38, "8": 41},
        **{"1again": 41, "2again": 41},
    }
    spared = {name: alone[name].usage.positions_computed - shared[name].usage.positions_computed for name in cached}
    assert spared == dict.fromkeys(cached, 0) | {
        **{"1": CANVAS - 4, "2": 41, "3": 38, "8": CANVAS - 4},
        **{"1again": CANVAS - 4, "2again": 41},
    }


def samples(number: int, **options: object) -> list[GenerationRequest]:
    return [make_request(f"s{n}", [65] * 60, max_tokens=8, stream="final", **options) for n in range(number)]  # type: ignore[arg-type]


def rig(num_slots: int = 8, **options: object) -> Rig:
    return scripted("bidirectional", max_num_seqs=num_slots, max_model_len=96, **options)  # type: ignore[arg-type]


def dual(one: Rig, number: int, **options: object) -> list[GenerationRequest]:
    strategy = {"decoder": "sequential", "steps": 4, "cache": "dual", "block_length": 8}
    return samples(number, engine=one.engine, strategy=strategy, **options)


def fed(one: Rig) -> int:
    assert isinstance(one.executor, ScriptedExecutor)
    return sum(int((plan.rows.q_end_R - plan.rows.q_start_R).sum()) for plan in one.executor.plans)


def test_samples_of_a_prompt_compute_one_first_pass() -> None:
    one = rig()
    done = final(one.engine, dual(one, 8))
    assert {output.usage.forwards for output in done.values()} == {4}
    assert fed(one) == 68 + 8 * 4 * 8 - 8
    assert one.engine.stats().cached_tokens == 7 * 60
    one.check_empty()


def test_who_comes_while_a_first_pass_runs_takes_it_over() -> None:
    one = rig(2)
    first, second = dual(one, 2)
    one.engine.add_request(first)
    one.engine.step()
    done = final(one.engine, [second])
    assert done["s1"].usage.cached_tokens == 60
    one.check_empty()


@pytest.mark.parametrize(("page_size", "num_pages"), [(8, 30), (96, 3)])
def test_a_first_pass_is_kept_where_pages_are_free(page_size: int, num_pages: int) -> None:
    one = rig(2, page_size=page_size, num_pages=num_pages)
    first, second, third = dual(one, 3)
    final(one.engine, [first])
    assert final(one.engine, [second])["s1"].usage.cached_tokens == 60
    final(one.engine, [make_request(f"{n}", [66 + n] * 70, max_tokens=8) for n in range(4)])
    assert final(one.engine, [third])["s2"].usage.cached_tokens == 0, "its pages were needed"
    one.check_empty()


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("victim", ["s0", "s1"])
def test_if_the_first_one_leaves_another_computes_the_canvas(victim: str, steps: int) -> None:
    one = rig(3, page_size=96)
    alone = final(rig().engine, dual(one, 1))["s0"]
    for request in dual(one, 3):
        one.engine.add_request(request)
    one.core._admit(0.0)
    for _ in range(steps):
        one.engine.step()
    one.engine.abort(victim)
    done = final(one.engine, [])
    assert {output.token_ids for output in done.values()} == {alone.token_ids}
    assert len(done) == 2
    assert {output.usage.forwards for output in done.values()} == {4}
    one.check_empty()


def test_a_request_that_is_preempted_while_it_waits_or_leads_gets_its_tokens() -> None:
    one = rig(2)
    alone = final(rig().engine, dual(one, 1))["s0"]
    for request in dual(one, 2):
        one.engine.add_request(request)
    one.core._admit(0.0)
    for name in ("u0", "u1"):
        one.engine.add_request(make_request(name, [99] * 3, max_tokens=2, priority=-1))
    done = final(one.engine, [])
    assert one.engine.stats().preemptions == 2
    assert {done[name].token_ids for name in ("s0", "s1")} == {alone.token_ids}
    assert done["s1"].usage.cached_tokens == 60
    one.check_empty()


def test_other_salts_small_canvases_and_unfused_engines_share_nothing() -> None:
    one = rig()
    salted = [make_request(f"{n}", [65] * 60, max_tokens=8, cache_salt=f"{n}") for n in range(2)]
    small = [make_request(f"small{n}", [65] * 8, max_tokens=20) for n in range(2)]
    final(one.engine, [*salted, *small])
    for off in (rig(fused=False), rig(prefix_sharing=False)):
        final(off.engine, dual(off, 3))
        assert off.engine.stats().cached_tokens == 0
    assert one.engine.stats().cached_tokens == 0
