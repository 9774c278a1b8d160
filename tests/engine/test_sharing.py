"""Prompts in common are computed once, and nobody can tell by the tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.llm_engine import LLMEngine
from engine.sequence import GenerationRequest
from tests.helpers.engines import ByWire, EngineConfig, ScriptedExecutor, drive, final, load, make_request, scripted

PROMPT = [(7 * n) % 280 for n in range(41)]


def family(salt: str = "") -> list[GenerationRequest]:
    """Three samples of one prompt, two prompts that begin as it does, and one that does not."""
    prompts = [PROMPT, PROMPT, PROMPT, [*PROMPT[:37], 9, 9, 9], [*PROMPT[:20], 8, 8], [3, *PROMPT[1:]]]
    return [
        make_request(
            f"{number}{salt}", prompt, max_tokens=11, temperature=0.9, seed=number, cache_salt=salt, stream="final"
        )
        for number, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("page_size", [None, 8])
def test_outputs_with_and_without_sharing_are_equal_to_the_last_bit(sdar_folder: Path, page_size: int | None) -> None:
    settings = {"max_num_seqs": 3, "max_model_len": 64, "page_size": page_size, "device": "cpu"}
    outputs, wires = [], []
    for sharing in (False, True):
        engine = LLMEngine.from_pretrained(
            sdar_folder,
            EngineConfig(**settings, prefix_sharing=sharing),  # type: ignore[arg-type]
            executor=lambda runner: wires.append(ByWire(runner)) or wires[-1],  # type: ignore[func-returns-value]
        )
        outputs.append(final(engine, family()) | final(engine, family("again")))
    alone, shared = outputs
    assert [(one.token_ids, one.text, one.finish_reason) for one in alone.values()] == [
        (one.token_ids, one.text, one.finish_reason) for one in (shared[name] for name in alone)
    ]
    assert alone["0"].logprobs == shared["0"].logprobs
    cached = {name: output.usage.cached_tokens for name, output in shared.items()}
    assert [cached[name] for name in "0123"] == [0, 40, 40, 36]
    assert cached["5"] == 0
    assert cached["0again"] == 0, "another salt"
    assert cached["1again"] == 40
    assert not any(output.usage.cached_tokens for output in alone.values())
    assert any(plan.copies for plan in wires[1].plans)
    assert not any(plan.copies for plan in wires[0].plans)


def test_a_turn_of_a_chat_goes_on_where_the_last_one_ended(sdar_folder: Path) -> None:
    engine = load(sdar_folder, max_num_seqs=2, max_model_len=96)
    strategy = {"decoder": "threshold", "threshold": 0.5}
    first = final(
        engine, [make_request("a", PROMPT, engine, max_tokens=20, ignore_eos=True, strategy=strategy, stream="final")]
    )["a"]
    turns = [*PROMPT, *first.token_ids, 5, 6, 7]
    second = final(engine, [make_request("b", turns, engine, max_tokens=8, strategy=strategy, stream="final")])["b"]
    assert first.usage.completion_tokens == 20
    assert second.usage.cached_tokens >= len(PROMPT)
    fresh = load(sdar_folder, max_num_seqs=2, max_model_len=96)
    again = final(fresh, [make_request("b", turns, fresh, max_tokens=8, strategy=strategy, stream="final")])["b"]
    assert (again.token_ids, again.usage.cached_tokens) == (second.token_ids, 0)
    assert again.usage.positions_computed - second.usage.positions_computed == second.usage.cached_tokens


def test_samples_of_a_prompt_wait_for_the_first_of_them() -> None:
    rig = scripted("block_causal", max_num_seqs=4, max_model_len=128, token_budget=64, num_pages=400)
    requests = [make_request(name, [65] * 100, max_tokens=4) for name in "abcd"]
    alone = drive(scripted("block_causal", max_model_len=128).engine, requests[:1])["a"]
    results = drive(rig.engine, requests)
    assert {one.token_ids for one in results.values()} == {alone.token_ids}
    assert isinstance(rig.executor, ScriptedExecutor)
    fed = sum(int((plan.rows.q_end_R - plan.rows.q_start_R).sum()) for plan in rig.executor.plans)
    assert fed < 100 + 4 * 4 * 4
    rig.check_empty()


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("victim", ["a", "b"])
def test_if_the_first_one_leaves_another_computes_the_prompt(victim: str, steps: int) -> None:
    rig = scripted("block_causal", max_num_seqs=4, max_model_len=128, token_budget=40, num_pages=400)
    requests = [make_request(name, [65] * 100, max_tokens=6) for name in "abc"]
    alone = drive(scripted("block_causal", max_model_len=128).engine, requests[:1])["a"]
    for one in requests:
        rig.engine.add_request(one)
    for _ in range(steps):
        rig.engine.step()
    rig.engine.abort(victim)
    done: dict[str, tuple[int, ...]] = {}
    while rig.engine.has_unfinished_requests():
        for output in rig.engine.step():
            done[output.request_id] = done.get(output.request_id, ()) + output.token_ids
    assert done == dict.fromkeys({"a", "b", "c"} - {victim}, alone.token_ids)
    rig.check_empty()


def test_guided_requests_and_other_policies_share_nothing() -> None:
    engine = scripted("block_causal", max_num_seqs=4, max_model_len=128).engine
    for options in ({"cfg_scale": 1.0}, {"cache": "none"}):
        assert engine.validate(make_request("a", [65] * 60, engine, strategy=options, max_tokens=4)).prefix_keys == ()
    off = scripted("block_causal", max_model_len=128, prefix_sharing=False).engine
    assert off.validate(make_request("a", [65] * 60, max_tokens=4)).prefix_keys == ()
    assert len(engine.validate(make_request("a", [65] * 60, max_tokens=4)).prefix_keys) == 15


def test_a_preempted_request_finds_its_prompt_again() -> None:
    rig = scripted("block_causal", max_num_seqs=2, max_model_len=128)
    long = [make_request(name, [65 + n] * 60, max_tokens=20, stream="final") for n, name in enumerate("ab")]
    alone = drive(rig.engine, long)
    for one in long:
        rig.engine.add_request(one)
    for _ in range(3):
        rig.engine.step()
    rig.engine.add_request(make_request("urgent", [99] * 3, max_tokens=2, priority=-1))
    done = {}
    while rig.engine.has_unfinished_requests():
        done |= {output.request_id: output for output in rig.engine.step() if output.finished}
    assert rig.engine.stats().preemptions == 1
    assert [done[name].token_ids for name in "ab"] == [alone[name].token_ids for name in "ab"]
    fed = {name: done[name].usage.positions_computed for name in "ab"}
    assert max(fed.values()) - min(fed.values()) < 30, "the victim has not computed its prompt again"
