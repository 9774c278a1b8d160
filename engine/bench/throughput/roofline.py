"""What this machine can do at best, measured beside the benchmark, and what a forward needs at least.

Shape legend: T query positions of a forward, D hidden size, F width of a feed-forward network, V logit columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.models.spec import ModelSpec
from engine.plan import Rows

PROBE_SIZE = 1536
COPY_BYTES = 2**28
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Roofline:
    """The best of several tries, with the threads and the dtype of the benchmark."""

    flops_per_s: float
    bytes_per_s: float

    def floor_s(self, work: Work) -> float:
        """Time that the work takes at least: the longer of computing and moving."""
        return max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of a forward's matrix products, and bytes of weights and K/V that it reads."""

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds of the wall, after everything that was asked of the device is done; or with ``cpu`` those that this
    process has computed on any core, which neighbours on a shared machine change much less."""

    device: torch.device
    cpu: bool = False

    def now(self) -> float:
        return time.process_time() if self.cpu else now(self.device)


def measure(dtype: torch.dtype, clock: Clock) -> Roofline:
    """Square matrix product and a large copy (each byte counted as read and as written)."""
    left, right = (torch.ones(PROBE_SIZE, PROBE_SIZE, dtype=dtype, device=clock.device) for _ in range(2))
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=clock.device)
    target = torch.zeros_like(source)
    product_s = best_time(lambda: left @ right, clock)
    copy_s = best_time(lambda: target.copy_(source), clock)
    return Roofline(2 * PROBE_SIZE**3 / product_s, 2 * COPY_BYTES / copy_s)


def best_time(run: Callable[[], object], clock: Clock) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(REPEATS):
        started = clock.now()
        run()
        times.append(clock.now() - started)
    return min(times)


def now(device: torch.device) -> float:
    """Seconds, after everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def body_work(spec: ModelSpec, rows: Rows, itemsize: int) -> Work:
    """The layers of one forward: every weight once (of experts, those that can have been chosen), every key and value
    that a row sees."""
    queries = int((rows.q_end_R - rows.q_start_R).sum())
    keys_R = rows.kv_end_R - rows.kv_start_R
    pairs = int(((rows.q_end_R - rows.q_start_R) * keys_R).sum())
    active, read = _layer_weights(spec, queries)
    head_width = spec.num_heads * spec.head_dim
    kv_width = spec.num_kv_heads * spec.head_dim
    return Work(
        flops=2.0 * active * queries + spec.num_layers * 4.0 * pairs * head_width,
        bytes=itemsize * (read + spec.num_layers * 2.0 * int(keys_R.sum()) * kv_width),
    )


def head_work(spec: ModelSpec, num_positions: int, itemsize: int) -> Work:
    """Logits of so many positions."""
    weights = float(spec.vocab_size * spec.hidden_size)
    return Work(2.0 * weights * num_positions, itemsize * weights if num_positions else 0.0)


def _layer_weights(spec: ModelSpec, queries: int) -> tuple[float, float]:
    """Weights of all layers that a token passes through, and that a forward of ``queries`` tokens reads."""
    width, head, kv = spec.hidden_size, spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    attention = width * (head + 2 * kv) + head * width
    moe = spec.moe
    active = read = 0.0
    for layer in range(spec.num_layers):
        if moe is None or layer in moe.dense_layers:
            feed_forward = 3 * width * spec.intermediate_size
            active, read = active + attention + feed_forward, read + attention + feed_forward
            continue
        per_token = moe.routing.experts_per_token
        expert, always = 3 * width * moe.intermediate_size, width * moe.num_experts
        always += 3 * width * moe.shared_intermediate_size
        active += attention + always + per_token * expert
        read += attention + always + min(moe.num_experts, queries * per_token) * expert
    return active, read
