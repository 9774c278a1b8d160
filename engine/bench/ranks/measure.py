"""One workload over the ranks of a layout: what a forward costs each of them, and what all send each other.

Ranks share the machine with each other and with whatever else runs there. So computing is CPU time of a rank's thread,
and every duration is the smallest of several equal runs, step by step; of a collective also the smallest of its ranks,
which is that of the rank that came last and waited for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from engine.bench.ranks.least_bytes import LeastBytes, least_bytes
from engine.bench.ranks.processes import Job, Leader, Processes
from engine.lockstep import PLAN
from engine.plan_codec import decode_plan, encode_plan
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest

BEATS = 30
CODEC_REPEATS = 3
ITEMSIZE = 4
"""The benchmark computes in float32."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """So many equal requests at once, and the strategy of all."""

    batch: int
    prompt_len: int
    max_tokens: int
    threshold: float

    def requests(self, leader: Leader) -> Iterator[GenerationRequest]:
        """Prompts of seeded random ids; completions never end early."""
        engine, rng = leader.engine, np.random.default_rng(0)
        for index in range(self.batch):
            yield GenerationRequest(
                request_id=str(index),
                prompt=rng.integers(0, engine.spec.mask_token_id, self.prompt_len).tolist(),
                sampling=SamplingParams(max_tokens=self.max_tokens, ignore_eos=True, seed=index),
                strategy=engine.strategy({"decoder": "threshold", "threshold": self.threshold}),
                stream="final",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Of one layout; seconds and bytes are those of a mean forward.

    ``compute_s`` is of the rank that computes most, ``all_compute_s`` of all together; encoding or decoding the plan
    is part of it. ``exchange_s`` are the collectives, ``send_s`` is rank 0 that sends the plan. ``step_s`` is wall time
    of rank 0 and means something only where every rank has a core to itself. Bytes are sent by all ranks together.
    """

    tokens: tuple[tuple[int, ...], ...]
    forwards: int
    step_s: float
    compute_s: float
    all_compute_s: float
    collectives: float
    exchange_s: float
    message_bytes: float
    encode_s: float
    send_s: float
    decode_s: float
    beat_s: float
    tensor_bytes: float
    plan_bytes: float
    least: LeastBytes

    @property
    def sent_bytes(self) -> float:
        return self.tensor_bytes + self.plan_bytes

    @property
    def sent_bytes_per_token(self) -> float:
        return self.sent_bytes * self.forwards / sum(map(len, self.tokens))

    @property
    def byte_ratio(self) -> float:
        """Bytes sent over those that have to be sent."""
        return self.sent_bytes * self.forwards / self.least.total if self.least.total else 1.0

    @property
    def busy_s(self) -> float:
        """A forward where every rank has a core to itself and no rank waits for another."""
        return self.compute_s + self.exchange_s + self.send_s


def measure(processes: Processes, job: Job, workload: Workload, runs: int) -> Measurement:
    """A run that warms up, then ``runs`` that count."""
    with processes.lead(job) as leader:
        results = [_run(leader, workload) for _ in range(1 + runs)]
        beat_s = 0.0 if leader.leading is None else _best(leader.leading.beat, BEATS)
        records = processes.records(leader)
    tokens, first_s = results[0]
    assert all(again == tokens for again, _ in results), "equal runs gave different tokens"
    forwards = len(first_s)
    steps_s = np.array([wall_s for _, wall_s in results[1:]]).min(axis=0)
    computes_s = [float(best_of_runs([one.compute_s], runs).sum()) / forwards for one in records]
    calls_s = best_of_runs([one.call_s for one in records], runs)
    codec = _codec([] if leader.channel is None else leader.channel.messages[-forwards:])
    positions = leader.engine.stats().positions // (1 + runs)
    decided = leader.times.head_positions // (1 + runs)
    return Measurement(
        tokens=tokens,
        forwards=forwards,
        step_s=float(steps_s.mean()),
        compute_s=max(computes_s),
        all_compute_s=sum(computes_s),
        collectives=len(calls_s) / forwards,
        exchange_s=float(calls_s.sum()) / forwards,
        message_bytes=codec.message_bytes / forwards,
        encode_s=codec.encode_s / forwards,
        send_s=float(best_of_runs([records[0].send_s], runs).sum()) / forwards,
        decode_s=codec.decode_s / forwards,
        beat_s=beat_s,
        tensor_bytes=_of_mean_forward([one.tensor_bytes for one in records]),
        plan_bytes=_of_mean_forward([one.plan_bytes for one in records]),
        least=least_bytes(job.spec, job.config.layout, ITEMSIZE, positions, decided, codec.message_bytes),
    )


@dataclass(slots=True)
class _Codec:
    """Of all messages of a run."""

    message_bytes: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0


def _codec(messages: Sequence[bytes]) -> _Codec:
    """What the plans cost as bytes, tried once more."""
    codec = _Codec()
    for message in messages:
        encoded = message[len(PLAN) :]
        plan = decode_plan(encoded)
        codec.message_bytes += len(message)
        codec.encode_s += _best(partial(encode_plan, plan), CODEC_REPEATS)
        codec.decode_s += _best(partial(decode_plan, encoded), CODEC_REPEATS)
    return codec


def _run(leader: Leader, workload: Workload) -> tuple[tuple[tuple[int, ...], ...], list[float]]:
    """The completions in the order of the requests, and the duration of each step."""
    for request in workload.requests(leader):
        leader.engine.add_request(request)
    tokens: dict[int, tuple[int, ...]] = {}
    wall_s = []
    while leader.engine.has_unfinished_requests():
        started = time.perf_counter()
        outputs = leader.engine.step()
        wall_s.append(time.perf_counter() - started)
        for output in outputs:
            if output.finished:
                tokens[int(output.request_id)] = tuple(output.token_ids)
    return tuple(tokens[index] for index in sorted(tokens)), wall_s


def best_of_runs(seconds: Sequence[Sequence[float]], runs: int) -> Floats:
    """The smallest of all runs but the first and of all ranks, for each event of a run; every rank has a list of all
    its runs' events."""
    table = np.array(seconds, dtype=np.float64)
    assert table.shape[1] % (runs + 1) == 0, "the runs were not alike"
    return np.asarray(table.reshape(len(table), runs + 1, -1)[:, 1:].min(axis=(0, 1)))


def _of_mean_forward(sent: Sequence[Sequence[int]]) -> float:
    """Of all ranks together; a list per rank."""
    return float(np.array(sent, dtype=np.float64).sum(axis=0).mean()) if sent[0] else 0.0


def _best(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)
