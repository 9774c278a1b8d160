"""An engine's counters as samples; runs in the replica, so that no other process needs the engine's types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.metrics.spec import Sample, counter, gauge, histogram

if TYPE_CHECKING:
    from engine.core import EngineStats
    from engine.step_meter import Distribution, StepReadings


def engine_samples(stats: EngineStats, readings: StepReadings) -> list[Sample]:
    """All metrics of the engine, without the replica's labels."""
    return [
        *_occupancy(stats),
        counter("engine_forwards", stats.forwards),
        counter("engine_positions", stats.positions),
        counter("engine_tokens", stats.tokens),
        counter("engine_cached_tokens", stats.cached_tokens),
        counter("engine_preemptions", stats.preemptions),
        *(counter("engine_sequences", count, reason=reason) for reason, count in readings.ended.items()),
        *_distributions(readings),
    ]


def _occupancy(stats: EngineStats) -> list[Sample]:
    return [
        gauge("engine_slots", stats.num_free_slots, state="free"),
        gauge("engine_slots", stats.num_slots - stats.num_free_slots, state="used"),
        gauge("engine_running_sequences", stats.num_running),
        gauge("engine_waiting_sequences", stats.num_waiting),
        gauge("engine_waiting_positions", stats.waiting_positions),
        gauge("engine_pages", stats.num_free_pages, state="free"),
        gauge("engine_pages", stats.num_pages - stats.num_free_pages, state="used"),
        gauge("engine_kv_positions", stats.kv_positions, state="used"),
        gauge("engine_kv_positions", stats.num_pages * stats.page_size, state="capacity"),
    ]


def _distributions(readings: StepReadings) -> list[Sample]:
    samples = [
        *_histogram("engine_queue_wait_seconds", readings.wait_s),
        *_histogram("engine_forward_rows", readings.rows),
        *_histogram("engine_forward_positions", readings.positions),
    ]
    for phase, seconds in readings.phase_s.items():
        samples += _histogram("engine_step_seconds", seconds, phase=phase)
    return samples


def _histogram(name: str, values: Distribution, **labels: str) -> list[Sample]:
    return histogram(name, values.bounds, values.counts, values.total, **labels)
