"""Requests that lose their slot go on later with the tokens that they would have got, and deadlines end requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.cache import CACHE_POLICIES
from engine.cache.policy import AttentionPattern
from engine.errors import DeadlineExceededError
from engine.input_processor import is_repeatable
from engine.llm_engine import LLMEngine
from engine.outputs import RequestOutput
from engine.sequence import GenerationRequest
from tests.helpers.engines import Outcome, Rig, drive, load, make_request, outcome, scripted
from tests.helpers.mixture import mixture

MAX_URGENT = 12
PATTERNS: list[AttentionPattern] = ["bidirectional", "block_causal"]


def drive_disturbed(engine: LLMEngine, victim: GenerationRequest, every: int) -> tuple[Outcome, int]:
    """The outcome of a request that is disturbed by a more urgent one each so many steps."""
    engine.add_request(victim)
    increments: list[RequestOutput] = []
    before, number = engine.stats().preemptions, 0
    for step in range(400):
        if step % every == every - 1 and number < MAX_URGENT:
            number += 1
            engine.add_request(make_request(f"urgent-{number}", [70 + number], max_tokens=2, priority=-9))
        increments += [output for output in engine.step() if output.request_id == victim.request_id]
        if increments and increments[-1].finished:
            break
    while engine.has_unfinished_requests():
        engine.step()
    return outcome(increments), engine.stats().preemptions - before


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("stream", ["block", "step"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_preempted_request_gets_its_tokens(pattern: AttentionPattern, stream: str, fused: bool) -> None:
    settings = {"max_num_seqs": 1, "max_preemptions": 5, "fused": fused}
    request = make_request("a", [65] * 6, max_tokens=21, stream=stream)
    alone = drive(scripted(pattern, **settings).engine, [request])["a"]  # type: ignore[arg-type]
    preempted = set()
    for every in (1, 2, 3, 5):
        rig = scripted(pattern, **settings)  # type: ignore[arg-type]
        result, times = drive_disturbed(rig.engine, request, every)
        assert result == alone
        preempted.add(times)
        rig.check_empty()
    assert max(preempted) >= 3
    assert max(preempted) <= 5


def test_the_forwards_of_a_preempted_request_are_all_counted() -> None:
    rig = scripted("bidirectional", max_num_seqs=1)
    rig.engine.add_request(make_request("a", [65] * 2, max_tokens=8))
    rig.engine.step()  # half of the first block, which is decided again
    rig.engine.add_request(make_request("b", [66], max_tokens=2, priority=-1))
    last = [output for _ in range(8) for output in rig.engine.step() if output.request_id == "a"][-1]
    assert (last.usage.forwards, last.usage.denoising_steps) == (5, 4)
    assert last.usage.positions_computed == 10 + 4 + (10 + 4) + 10


def test_equal_priorities_take_turns_only_when_someone_ends() -> None:
    rig = scripted(max_num_seqs=1)
    for name in "abc":
        rig.engine.add_request(make_request(name, [65], max_tokens=9))
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    assert rig.engine.stats().preemptions == 0


def test_a_template_keeps_its_fixed_tokens() -> None:
    template = [None, 40, None, None, 41, None, None, None, 42, None]
    request = make_request("a", [65] * 3, template=template)
    settings = {"max_num_seqs": 1, "max_preemptions": 3}
    alone = drive(scripted("bidirectional", **settings).engine, [request])["a"]  # type: ignore[arg-type]
    for every in (2, 3):
        result, times = drive_disturbed(scripted("bidirectional", **settings).engine, request, every)  # type: ignore[arg-type]
        assert (result, times > 0) == (alone, True)


def covering(requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """Of the requests of a mixture that take one slot one per decoder and one per cache policy."""
    chosen: dict[str, GenerationRequest] = {}
    for one in requests:
        strategy = one.strategy
        if strategy is not None and not strategy.cfg_scale and is_repeatable(strategy):
            chosen.setdefault(strategy.decoder, one)
            chosen.setdefault(strategy.cache, one)
    return list({one.request_id: one for one in chosen.values()}.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llada_folder", "sdar_folder"])
def test_every_decoder_and_policy_survives_preemption(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    engine = load(folder, max_num_seqs=1, max_preemptions=3)
    num_preempted = 0
    for one in covering(mixture(engine)):
        alone = drive(engine, [one])[one.request_id]
        result, times = drive_disturbed(engine, one, 2)
        assert result == alone, one.request_id
        num_preempted += times
    assert num_preempted > 10


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def timed(rig: Rig, name: str, clock: Clock, timeout_s: float, max_tokens: int = 8) -> None:
    """Queue a request whose deadline is counted by the fake clock."""
    sequence = rig.engine.validate(make_request(name, [65], max_tokens=max_tokens))
    sequence.deadline_s = clock.now_s + timeout_s
    rig.engine.add(sequence)


def test_a_deadline_ends_running_and_waiting_requests_with_an_error() -> None:
    clock = Clock()
    rig = scripted(max_num_seqs=1, clock=clock)
    timed(rig, "runs", clock, 5.0)
    assert all(output.error is None for output in rig.engine.step())
    timed(rig, "waits", clock, 3.0)
    timed(rig, "stays", clock, 60.0)
    clock.now_s += 4.0
    errors = {output.request_id: output.error for output in rig.engine.step() if output.error}
    assert list(errors) == ["waits"]
    assert isinstance(errors["waits"], DeadlineExceededError)
    assert "waits for a slot" in str(errors["waits"])
    clock.now_s += 2.0
    (ended,) = [output for output in rig.engine.step() if output.error]
    assert (ended.request_id, ended.finished, str(ended.error)) == (
        "runs",
        True,
        "the request's deadline passed before all of its tokens were decided",
    )
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    rig.check_empty()
    assert rig.engine.readings().ended == {"stop": 0, "length": 1, "abort": 0, "deadline": 2}


def test_what_cannot_end_in_time_is_not_computed() -> None:
    clock = Clock()
    rig = scripted(max_num_seqs=1, clock=clock)
    rig.engine.add_request(make_request("first", [65], max_tokens=8))

    class Slow(Clock):
        def __call__(self) -> float:
            self.now_s += 0.5
            return self.now_s

    rig.core._clock = Slow()
    while rig.engine.has_unfinished_requests():
        rig.engine.step()
    rig.core._clock = clock
    clock.now_s = 2000.0
    timed(rig, "hopeless", clock, 2.0, max_tokens=40)
    timed(rig, "hopeful", clock, 30.0, max_tokens=8)
    outputs = rig.engine.step()
    assert [output.request_id for output in outputs if output.error] == ["hopeless"]
    assert rig.engine.stats().num_running == 1


def test_a_timeout_counts_from_the_moment_a_request_comes() -> None:
    rig = scripted()
    rig.engine.add_request(make_request("a", [65], max_tokens=8, timeout_s=1e-9))
    (output,) = rig.engine.step()
    assert isinstance(output.error, DeadlineExceededError)
    with pytest.raises(DeadlineExceededError):
        rig.engine.run([make_request("b", [65], max_tokens=8, timeout_s=1e-9)])
    rig.check_empty()


def test_policies_and_transforms_that_remember_are_not_repeatable() -> None:
    engine = scripted("bidirectional").engine
    repeatable = {name: is_repeatable(engine.strategy({"cache": name})) for name in CACHE_POLICIES if name != "block"}
    assert repeatable == {"none": True, "prefix": True, "dual": True, "vicinity": True, "window": True, "drift": False}
    for options in ({"smoothing_weight": 0.3}, {"initial_length": 2}, {"decoder": "klass"}):
        assert not is_repeatable(engine.strategy(options))
