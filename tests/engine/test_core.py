"""Abort in every state, and what the engine does afterwards."""

from __future__ import annotations

import pytest

from engine.cache.policy import AttentionPattern
from engine.errors import InvalidRequestError, OverloadedError
from engine.sequence import GenerationRequest
from tests.helpers.engines import MASK, Rig, ScriptedExecutor, drive, make_request, scripted

PATTERNS: list[AttentionPattern] = ["bidirectional", "block_causal"]


def batch(rig: Rig) -> list[GenerationRequest]:
    """Two plain requests and a guided one that has to wait (three slots)."""
    return [
        make_request("long", [65] * 21, max_tokens=9),
        make_request("short", [66] * 2, max_tokens=3),
        make_request("guided", [67] * 5, rig.engine, max_tokens=8, strategy={"cfg_scale": 0.5}),
    ]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("victim", ["long", "short", "guided"])
@pytest.mark.parametrize("fused", [True, False])
def test_abort_after_any_number_of_steps_frees_everything_and_changes_nobody(
    pattern: AttentionPattern, victim: str, fused: bool
) -> None:
    """Steps 0 to 13 pass through waiting, prefill, blocks, the last block and (not fused) commits."""
    expected = drive(scripted(pattern, fused=fused).engine, batch(scripted(pattern)))
    rig = scripted(pattern, fused=fused)
    for steps in range(14):
        for one in batch(rig):
            rig.engine.add_request(one)
        finished: dict[str, tuple[int, ...]] = {}
        for _ in range(steps):
            finished |= collect(rig, finished)
        rig.engine.abort(victim)
        rig.blocks.check()
        stats = rig.engine.stats()
        assert stats.num_running + stats.num_waiting <= 2
        while rig.engine.has_unfinished_requests():
            finished |= collect(rig, finished)
        for name in {"long", "short", "guided"} - {victim}:
            assert finished[name] == expected[name].token_ids
        rig.check_empty()
        assert drive(rig.engine, batch(rig)) == expected
        rig.check_empty()


def collect(rig: Rig, finished: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    news: dict[str, tuple[int, ...]] = {}
    for output in rig.engine.step():
        news[output.request_id] = finished.get(output.request_id, ()) + output.token_ids
    return news


@pytest.mark.parametrize("pattern", PATTERNS)
def test_slot_and_pages_of_an_aborted_request_are_free_before_the_next_step(pattern: AttentionPattern) -> None:
    rig = scripted(pattern, max_num_seqs=1)
    rig.engine.add_request(make_request("a", [65] * 4, max_tokens=20))
    rig.engine.add_request(make_request("b", [66] * 4, max_tokens=4))
    rig.engine.step()
    assert rig.engine.stats().num_free_slots == 0

    rig.engine.abort("a")
    assert rig.engine.stats().num_free_slots == 1
    assert rig.engine.stats().num_free_pages == rig.blocks.num_pages
    rig.engine.step()

    assert isinstance(rig.executor, ScriptedExecutor)
    assert [admission.tokens[0] for admission in rig.executor.plans[-1].admitted] == [66]


def test_abort_in_the_middle_of_a_chunked_prompt() -> None:
    rig = scripted("block_causal", token_budget=8)
    rig.engine.add_request(make_request("a", [65] * 40, max_tokens=4))
    rig.engine.step()
    rig.engine.step()
    rig.engine.abort("a")
    rig.check_empty()
    assert drive(rig.engine, [make_request("b", [65] * 3, max_tokens=4)])["b"].finish_reason == "length"


def test_abort_of_an_unknown_or_finished_request_does_nothing() -> None:
    rig = scripted()
    rig.engine.abort("never seen")
    drive(rig.engine, [make_request("a", [65], max_tokens=2)])
    rig.engine.abort("a")
    rig.check_empty()


def test_an_id_may_be_used_again_only_after_its_request_is_over() -> None:
    rig = scripted()
    first = drive(rig.engine, [make_request("a", [65], max_tokens=6)])
    rig.engine.add_request(make_request("a", [65], max_tokens=6))
    with pytest.raises(InvalidRequestError, match="already in use") as caught:
        rig.engine.add_request(make_request("a", [66], max_tokens=2))
    assert caught.value.param == "request_id"
    rig.engine.abort("a")
    assert drive(rig.engine, [make_request("a", [65], max_tokens=6)]) == first


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    rig = scripted(max_num_seqs=1, max_queue_len=1)
    requests = [make_request(name, [65], max_tokens=3) for name in "abc"]
    rig.engine.add_request(requests[0])
    rig.engine.add_request(requests[1])
    with pytest.raises(OverloadedError):
        rig.engine.add_request(requests[2])
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    rig.check_empty()
    rig.engine.add_request(requests[2])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("stream", ["final", "block", "step"])
def test_every_way_to_stream_gives_the_same_completion(pattern: AttentionPattern, stream: str) -> None:
    rig = scripted(pattern)
    streamed, plain = (make_request("a", [65] * 5, max_tokens=11, stream=how) for how in (stream, "block"))
    assert drive(rig.engine, [streamed]) == drive(rig.engine, [plain])


def test_steps_show_the_canvas_and_when_each_position_was_filled() -> None:
    rig = scripted("bidirectional")
    rig.engine.add_request(make_request("a", [65] * 2, max_tokens=6, stream="step"))
    outputs = [output for _ in range(3) for output in rig.engine.step()]
    canvases = [output.canvas for output in outputs]
    assert all(canvas is not None for canvas in canvases)
    shown = [(canvas.token_ids.count(MASK), canvas.revealed_at) for canvas in canvases if canvas is not None]
    assert shown == [
        (4, (1, 1, 0, 0, 0, 0)),
        (2, (1, 1, 2, 2, 0, 0)),
        (0, (1, 1, 2, 2, 3, 3)),
    ]
    for canvas in canvases:
        assert canvas is not None
        known = [0 < probability <= 1 for probability in canvas.probabilities]
        assert known == [token != MASK for token in canvas.token_ids], "nan where nothing is decided"
    assert outputs[-1].finished


def test_usage_and_stats_count_what_happened() -> None:
    rig = scripted("bidirectional")
    done = drive(rig.engine, [make_request("a", [65] * 3, max_tokens=8)])["a"]
    assert done.denoising_steps == 4
    stats = rig.engine.stats()
    assert (stats.forwards, stats.tokens) == (4, 8)
