"""The spans of sequences: what is there, when, whose child it is, and what it says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NoOpTracerProvider, StatusCode

from engine.async_engine import AsyncEngine
from engine.cache.policy import AttentionPattern
from engine.errors import EngineDeadError, OverloadedError
from engine.llm_engine import LLMEngine
from engine.span_catalog import ENGINE_SPANS
from engine.telemetry import EngineTelemetry, parent_context, trace_headers
from tests.helpers.engines import Rig, ScriptedExecutor, make_request, scripted
from tests.helpers.traces import SAMPLED, UNSAMPLED, Recorder, check_against, is_child, said, span_id, times, trace_id

PATTERNS: list[AttentionPattern] = ["bidirectional", "block_causal"]
PROMPT = [65] * 5


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def traced(recorder: Recorder, pattern: AttentionPattern = "block_causal", **options: object) -> Rig:
    return scripted(pattern, telemetry=EngineTelemetry(recorder.provider), **options)  # type: ignore[arg-type]


def finish(engine: LLMEngine) -> None:
    while engine.has_unfinished_requests():
        engine.step()


def total(spans: list[ReadableSpan], name: str) -> int:
    return sum(said(span)[name] for span in spans)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("stream", ["final", "block", "step"])
def test_a_sequence_has_queue_prefill_and_blocks_one_after_the_other(
    recorder: Recorder, pattern: AttentionPattern, fused: bool, stream: str
) -> None:
    rig = traced(recorder, pattern, fused=fused)
    rig.engine.add_request(make_request("a", PROMPT, max_tokens=10, stream=stream, traceparent=SAMPLED))
    finish(rig.engine)

    check_against(ENGINE_SPANS, recorder.spans)
    sequence, queue, prefill = (recorder.one(f"lacuna.{name}") for name in ("sequence", "queue", "prefill"))
    blocks = recorder.named("lacuna.block")
    assert f"{trace_id(sequence):032x}" == SAMPLED[3:35]
    assert sequence.parent is not None
    assert f"{sequence.parent.span_id:016x}" == SAMPLED[36:52]
    assert all(is_child(span, sequence) for span in (queue, prefill, *blocks))
    assert times(queue)[0] == times(sequence)[0]
    assert times(queue)[1] <= times(prefill)[0] <= times(blocks[0])[0] <= times(prefill)[1]
    assert all(times(one)[1] <= times(other)[0] for one, other in pairwise(blocks))
    assert all(span.status.status_code is StatusCode.UNSET for span in recorder.spans)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("strategy", [{}, {"cfg_scale": 0.5}])
def test_the_blocks_add_up_to_the_sequence(
    recorder: Recorder, pattern: AttentionPattern, strategy: dict[str, object]
) -> None:
    rig = traced(recorder, pattern)
    rig.engine.add_request(make_request("a", PROMPT, rig.engine, max_tokens=10, strategy=strategy))
    outputs = []
    while rig.engine.has_unfinished_requests():
        outputs += rig.engine.step()

    usage = outputs[-1].usage
    sequence, blocks = recorder.one("lacuna.sequence"), recorder.named("lacuna.block")
    attributes = said(sequence)
    assert attributes["lacuna.blocks"] == len(blocks) > 1
    assert [said(span)["lacuna.block.index"] for span in blocks] == list(range(len(blocks)))
    for name, spent in (
        ("lacuna.forwards", usage.forwards),
        ("lacuna.denoising_steps", usage.denoising_steps),
        ("lacuna.positions_computed", usage.positions_computed),
        ("lacuna.tokens", usage.completion_tokens),
    ):
        assert total(blocks, name) == attributes[name] == spent
    assert attributes["lacuna.tokens_per_forward"] == usage.tokens_per_forward
    bounds = [(said(span)["lacuna.block.start"], said(span)["lacuna.block.end"]) for span in blocks]
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))


def test_a_chunked_prompt_is_computed_before_the_first_block(recorder: Recorder) -> None:
    rig = traced(recorder, token_budget=8)
    rig.engine.add_request(make_request("a", [65] * 40, max_tokens=4))
    finish(rig.engine)

    prefill, block = recorder.one("lacuna.prefill"), recorder.one("lacuna.block")
    assert said(prefill)["lacuna.forwards"] == total(recorder.named("lacuna.sequence"), "lacuna.forwards") - 1
    assert times(prefill)[0] < times(block)[0] < times(prefill)[1]
    assert said(block)["lacuna.forwards"] == said(block)["lacuna.denoising_steps"]


def test_each_block_has_one_forward_whose_context_the_plan_carries(recorder: Recorder) -> None:
    rig = traced(recorder)
    rig.engine.add_request(make_request("a", PROMPT, max_tokens=10))
    finish(rig.engine)

    blocks, forwards = recorder.named("lacuna.block"), recorder.named("lacuna.forward")
    assert all(is_child(forward, block) for forward, block in zip(forwards, blocks, strict=True))
    assert isinstance(rig.executor, ScriptedExecutor)
    carried = [plan.traceparent for plan in rig.executor.plans if plan.traceparent is not None]
    assert [parent[36:52] for parent in carried] == [f"{span_id(block):016x}" for block in blocks]


def test_a_sequence_that_waits_is_in_the_queue_until_another_ends(recorder: Recorder) -> None:
    rig = traced(recorder, max_num_seqs=1)
    for name in ("first", "second"):
        rig.engine.add_request(make_request(name, PROMPT, max_tokens=4))
    finish(rig.engine)

    first, second = recorder.named("lacuna.sequence")
    _, queue = recorder.named("lacuna.queue")
    assert is_child(queue, second)
    assert times(queue)[1] >= times(first)[1]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_aborted_sequence_ends_all_of_its_spans(recorder: Recorder, steps: int) -> None:
    rig = traced(recorder, token_budget=8)
    rig.engine.add_request(make_request("a", [65] * 9, max_tokens=8))
    for _ in range(steps):
        rig.engine.step()
    rig.engine.abort("a")

    sequence = recorder.one("lacuna.sequence")
    assert said(sequence)["lacuna.finish_reason"] == "abort"
    names = {0: ["queue"], 1: ["queue", "prefill"], 2: ["queue", "prefill", "block", "forward"]}[steps]
    assert [span.name for span in recorder.spans if span is not sequence] == [f"lacuna.{name}" for name in names]
    check_against(ENGINE_SPANS, recorder.spans)
    rig.engine.add_request(make_request("b", PROMPT, max_tokens=4))  # nothing of the former is left to be told
    finish(rig.engine)
    assert [said(span)["lacuna.finish_reason"] for span in recorder.named("lacuna.sequence")] == ["abort", "length"]


def test_a_stop_text_ends_the_block_that_it_is_in(recorder: Recorder) -> None:
    rig = traced(recorder)
    rig.engine.add_request(make_request("whole", PROMPT, max_tokens=12))
    finish(rig.engine)
    text = "".join(chr(ord("a") + (65 * 5 + position * 7) % 26) for position in range(5, 17))
    recorder.exporter.clear()
    rig.engine.add_request(make_request("a", PROMPT, max_tokens=12, stop=(text[4:6],)))
    finish(rig.engine)

    assert said(recorder.one("lacuna.sequence"))["lacuna.finish_reason"] == "stop"
    assert 1 <= len(recorder.named("lacuna.block")) < 3


def test_a_refused_sequence_fails_and_says_why(recorder: Recorder) -> None:
    rig = traced(recorder, max_num_seqs=1, max_queue_len=0)
    rig.engine.add_request(make_request("a", PROMPT, max_tokens=4))
    with pytest.raises(OverloadedError):
        rig.engine.add_request(make_request("b", PROMPT, max_tokens=4))

    refused = recorder.one("lacuna.sequence")
    assert refused.status.status_code is StatusCode.ERROR
    assert "queue is full" in (refused.status.description or "")
    assert said(refused)["error.type"] == "OverloadedError"
    assert is_child(recorder.one("lacuna.queue"), refused)


def test_when_the_engine_stops_every_open_span_ends(recorder: Recorder) -> None:
    rig = traced(recorder, executor=ScriptedExecutor(fails_at=1))
    rig.engine.add_request(make_request("a", PROMPT, max_tokens=12))
    rig.engine.step()
    with pytest.raises(RuntimeError):
        rig.engine.step()
    rig.engine.abandon(OverloadedError("the engine has stopped"))

    sequence = recorder.one("lacuna.sequence")
    assert sequence.status.status_code is StatusCode.ERROR
    assert {span.name for span in recorder.spans} >= {"lacuna.block", "lacuna.forward", "lacuna.sequence"}


async def test_requests_of_an_engine_whose_thread_dies_end_with_that(recorder: Recorder) -> None:
    rig = traced(recorder, executor=ScriptedExecutor(fails_at=1))
    engine = AsyncEngine(rig.engine)
    engine.start()
    with pytest.raises(EngineDeadError):
        assert [output async for output in engine.generate(make_request("a", PROMPT, max_tokens=12))]
    await engine.close()

    sequence = recorder.one("lacuna.sequence")
    assert said(sequence)["error.type"] == "EngineDeadError"
    assert "the device is gone" in (sequence.status.description or "")


def test_what_a_client_does_not_want_recorded_is_not(recorder: Recorder) -> None:
    rig = traced(recorder)
    rig.engine.add_request(make_request("a", PROMPT, max_tokens=4, traceparent=UNSAMPLED))
    finish(rig.engine)
    assert not recorder.spans


@pytest.mark.parametrize("telemetry", [None, EngineTelemetry(NoOpTracerProvider())])
def test_where_nobody_records_a_sequence_has_no_trace(telemetry: EngineTelemetry | None) -> None:
    rig = scripted(telemetry=telemetry)
    sequence = rig.engine.validate(make_request("a", PROMPT, max_tokens=12, traceparent=SAMPLED))
    rig.engine.add(sequence)
    finish(rig.engine)
    assert sequence.trace is None
    assert isinstance(rig.executor, ScriptedExecutor)
    assert {plan.traceparent for plan in rig.executor.plans} == {None}


def test_every_attribute_of_the_catalogue_occurs(recorder: Recorder) -> None:
    rig = traced(recorder, max_num_seqs=1, max_queue_len=0)
    rig.engine.add_request(make_request("a", PROMPT, max_tokens=4))
    with pytest.raises(OverloadedError):
        rig.engine.add_request(make_request("b", PROMPT, max_tokens=4))
    finish(rig.engine)
    for spec in ENGINE_SPANS:
        seen = {name for span in recorder.named(spec.name) for name in said(span)}
        failed = {"error.type"} if spec.name == "lacuna.forward" else set()  # see test_lockstep.py
        assert seen | failed == set(spec.attributes), spec.name


@pytest.mark.parametrize("traceparent", [None, "", "garbage", SAMPLED + "-", "00-" + "0" * 32 + SAMPLED[35:]])
def test_an_unreadable_parent_is_none(recorder: Recorder, traceparent: str | None) -> None:
    span = recorder.provider.get_tracer("t").start_span("a", parent_context(traceparent))
    assert getattr(span, "parent", None) is None


def test_the_vendors_part_of_a_context_is_passed_on(recorder: Recorder) -> None:
    span = recorder.provider.get_tracer("t").start_span("a", parent_context(SAMPLED, "vendor=1"))
    headers = trace_headers(span)
    assert headers.tracestate == "vendor=1"
    assert str(headers.traceparent).startswith(SAMPLED[:35])
