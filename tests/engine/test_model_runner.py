"""One rank's forward through the engine: pages, turns and skipped work change nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.llm_engine import LLMEngine
from engine.sequence import GenerationRequest
from tests.helpers.engines import Outcome, drive, load, make_request

STABLE: dict[str, object] = {"decoder": "klass", "threshold": 0.0, "kl_threshold": 50.0, "block_length": 4}
"""With these bounds everything is filled as soon as it has been looked at ``kl_history`` times more than once."""


def requests(engine: LLMEngine) -> list[GenerationRequest]:
    return [
        make_request("plain", [5, 6, 7], max_tokens=13),
        make_request("drawn", [9] * 8, max_tokens=9, temperature=1.0, seed=3),
        make_request("guided", [11, 2], engine, max_tokens=6, strategy={"cfg_scale": 1.5}),
        make_request("entropy", [4] * 5, engine, max_tokens=8, strategy={"decoder": "entropy_bounded"}),
        make_request("stable", [7, 3], engine, max_tokens=14, strategy=STABLE | {"cache": "none", "kl_history": 1}),
    ]


def run(folder: Path, **options: Any) -> dict[str, Outcome]:
    engine = load(folder, **({"max_num_seqs": 6} | options))
    return drive(engine, requests(engine))


@pytest.mark.parametrize("family", ["llada_folder", "sdar_folder"])
def test_small_pages_and_proposals_in_turns_give_the_same_tokens(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(family)
    expected = run(folder)
    assert run(folder, page_size=3) == expected
    monkeypatch.setattr("engine.model_runner.MAX_LOGITS", 900)  # three positions of 300 columns
    assert run(folder) == expected


def test_banned_tokens_are_never_chosen(llada_folder: Path) -> None:
    engine = load(llada_folder)
    free = drive(engine, [make_request("free", [5, 6, 7], max_tokens=12)])["free"]
    banned = sorted(set(free.token_ids))[:8]
    request = make_request("banned", [5, 6, 7], engine, max_tokens=12, strategy={"banned_tokens": banned})
    assert not set(drive(engine, [request])["banned"].token_ids) & set(banned)


def test_the_narrowest_filters_leave_the_argmax_and_only_those_who_ask_are_filtered(llada_folder: Path) -> None:
    engine = load(llada_folder)
    settings: dict[str, dict[str, Any]] = {
        "greedy": {},
        "top_k": {"temperature": 5.0, "top_k": 1},
        "top_p": {"temperature": 5.0, "top_p": 1e-9},
        "free": {"temperature": 5.0},
    }
    requests = [make_request(name, [5, 6, 7], max_tokens=12, seed=1, **one) for name, one in settings.items()]
    found = {name: outcome.token_ids for name, outcome in drive(engine, requests).items()}
    assert found["top_k"] == found["top_p"] == found["greedy"]
    assert found["free"] != found["greedy"]


def test_a_completion_never_holds_the_mask(llada_folder: Path) -> None:
    engine = load(llada_folder)
    hot = [
        make_request(f"hot-{seed}", [5], max_tokens=20, temperature=10.0, seed=seed, ignore_eos=True)
        for seed in range(8)
    ]
    for result in drive(engine, hot).values():
        assert len(result.token_ids) == 20
        assert engine.spec.mask_token_id not in result.token_ids


def test_guidance_0_is_no_guidance_and_guidance_changes_something(llada_folder: Path) -> None:
    engine = load(llada_folder)
    prompt = [5, 6, 7, 8]
    results = {
        scale: drive(engine, [make_request("a", prompt, engine, max_tokens=16, strategy={"cfg_scale": scale})])["a"]
        for scale in (0, 2.0)
    }
    plain = drive(engine, [make_request("a", prompt, max_tokens=16)])["a"]
    assert results[0] == plain
    assert results[2.0].token_ids != plain.token_ids


@pytest.mark.parametrize(
    ("cache", "steps"),
    [
        ({"cache": "none"}, [3, 2, 2]),
        ({"cache": "prefix"}, [3, 2, 2]),
        ({"cache": "vicinity", "after_look": 4}, [3, 2, 2]),
        ({"cache": "vicinity", "after_look": 3, "warmup_steps": 0}, [3, 3, 3]),
        ({"cache": "dual"}, [3, 3, 3]),
    ],
)
def test_divergences_reach_into_the_next_block_where_it_was_computed(
    llada_folder: Path, cache: dict[str, object], steps: list[int]
) -> None:
    """Of the two stable steps that KLASS wants, the first step of a later block may be one."""
    engine = load(llada_folder)
    strategy = STABLE | {"kl_history": 2} | cache
    engine.add_request(
        make_request("a", [5, 6, 7], engine, max_tokens=12, strategy=strategy, ignore_eos=True, stream="step")
    )
    open_after = [12]
    while engine.has_unfinished_requests():
        for output in engine.step():
            assert output.canvas is not None
            open_after.append(output.canvas.token_ids.count(engine.spec.mask_token_id))
    ends = [next(step for step, left in enumerate(open_after) if left <= bound) for bound in (12, 8, 4, 0)]
    assert [after - before for before, after in pairwise(ends)] == steps
