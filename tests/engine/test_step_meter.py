"""The engine's measurements of its own steps."""

from __future__ import annotations

import torch

from engine.forward_clock import ForwardClock
from engine.step_meter import StepMeter, Tally
from tests.helpers.engines import ScriptedExecutor, make_request, scripted


def test_a_value_on_a_bound_lies_in_the_bucket_below_it() -> None:
    tally = Tally((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 7.0):
        tally.add(value)
    reading = tally.snapshot()
    assert reading.counts == (2, 2, 1)
    assert reading.total == 12.0


def test_a_snapshot_stays_as_it_was() -> None:
    tally = Tally((1.0,))
    before = tally.snapshot()
    tally.add(0.5)
    assert before.counts == (0, 0)


def test_the_phases_of_a_step_add_up_to_it() -> None:
    meter = StepMeter()
    meter.stepped(step_s=1.0, execute_s=0.75, forward_s=0.5)
    phases = meter.readings().phase_s
    assert {name: phase.total for name, phase in phases.items()} == {"host": 0.25, "forward": 0.5, "decide": 0.25}


def test_a_forward_that_decides_nothing_is_all_forward() -> None:
    meter = StepMeter()
    meter.stepped(step_s=1.0, execute_s=0.75, forward_s=None)
    phases = meter.readings().phase_s
    assert (phases["forward"].total, phases["decide"].total) == (0.75, 0.0)
    assert all(sum(phase.counts) == 1 for phase in phases.values())


def test_an_engine_counts_what_its_steps_did() -> None:
    rig = scripted("bidirectional")
    engine = rig.engine
    for name in ("a", "b"):
        engine.add_request(make_request(name, [65] * 4, max_tokens=4))
    engine.add_request(make_request("gone", [65] * 4, max_tokens=4))
    engine.abort("gone")
    running = []
    while engine.has_unfinished_requests():
        engine.step()
        running.append(engine.stats().kv_positions)
    stats, readings = engine.stats(), engine.readings()

    assert readings.ended == {"stop": 0, "length": 2, "abort": 1, "deadline": 0}
    assert sum(readings.wait_s.counts) == 2
    assert stats.forwards == len(running) == sum(readings.rows.counts) == sum(readings.phase_s["host"].counts)
    assert readings.rows.total == 2 * stats.forwards
    assert readings.positions.total == stats.positions == 2 * (8 + 4), "both canvases, then both blocks (cache dual)"
    assert running[0] == 16
    assert running[-1] == stats.kv_positions == 0


def test_a_stop_text_is_no_abort() -> None:
    engine = scripted("bidirectional", ScriptedExecutor(lambda canvas, position: ord("x"))).engine
    engine.add_request(make_request("a", [65] * 4, max_tokens=12, stop=("xx",)))
    while engine.has_unfinished_requests():
        engine.step()
    assert engine.readings().ended == {"stop": 1, "length": 0, "abort": 0, "deadline": 0}


def test_a_clock_measures_until_it_is_stopped() -> None:
    clock = ForwardClock(torch.device("cpu"))
    clock.stop()
    seconds = clock.seconds()
    assert 0 <= seconds == clock.seconds() < 1
