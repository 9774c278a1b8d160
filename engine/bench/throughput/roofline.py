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


def body_work(spec: ModelSpec, rows: Rows, itemsize: int, num_read: int | None = None) -> Work:
    """The layers of one forward: every weight once (of experts, those that can have been chosen), every key and value
    that a row sees. The last layer has to make the outputs of ``num_read`` tokens only (None: of all)."""
    queries = int((rows.q_end_R - rows.q_start_R).sum())
    keys_R = rows.kv_end_R - rows.kv_start_R
    pairs = int(((rows.q_end_R - rows.q_start_R) * keys_R).sum())
    head_width = spec.num_heads * spec.head_dim
    kv_width = spec.num_kv_heads * spec.head_dim
    projections = spec.hidden_size * (head_width + 2 * kv_width)
    flops = spec.num_layers * (2.0 * projections * queries + 4.0 * pairs * head_width)
    read = spec.num_layers * (projections + 2.0 * int(keys_R.sum()) * kv_width)
    for layer in range(spec.num_layers):
        last = layer == spec.num_layers - 1
        outputs = num_read if last and num_read is not None else queries
        active, loaded = _output_weights(spec, layer, outputs)
        flops += 2.0 * active * outputs
        read += loaded
    return Work(flops, itemsize * read)


def head_work(spec: ModelSpec, num_positions: int, itemsize: int) -> Work:
    """Logits of so many positions."""
    weights = float(spec.vocab_size * spec.hidden_size)
    return Work(2.0 * weights * num_positions, itemsize * weights if num_positions else 0.0)


def _output_weights(spec: ModelSpec, layer: int, outputs: int) -> tuple[float, float]:
    """Weights behind a layer's attention that a token passes through, and that are read for so many tokens."""
    width, moe = spec.hidden_size, spec.moe
    mixing = width * spec.num_heads * spec.head_dim
    if moe is None or layer in moe.dense_layers:
        always, expert, per_token, num_experts = mixing + 3 * width * spec.intermediate_size, 0, 0, 0
    else:
        always = mixing + width * moe.num_experts + 3 * width * moe.shared_intermediate_size
        expert, per_token, num_experts = (
            3 * width * moe.intermediate_size,
            moe.routing.experts_per_token,
            moe.num_experts,
        )
    loaded = always + min(num_experts, outputs * per_token) * expert if outputs else 0
    return float(always + per_token * expert), float(loaded)
