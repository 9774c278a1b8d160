"""Denoising steps of fixed shapes, recorded as graphs: what a step needs of a plan lies in one buffer, and the step
itself counts on, so that it can be replayed several times before the host looks.

Shape legend: N decided blocks, R rows of a recorded step (N and padding), Q tokens of a row, B width of a block, F
fields of the buffer, C columns of a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.attention.token_rows import TokenRows
from engine.attention.ways import AttentionWay
from engine.cache.page_table import PageTable
from engine.cache.policy import BoolArray, IntArray
from engine.canvas import Canvas
from engine.columns import Columns
from engine.decider import Decider
from engine.decoding.dispatch import DecoderDispatch
from engine.decoding.places import Places
from engine.device_spans import DeviceSpans
from engine.graphs import GraphBackend, ladder, rung
from engine.models.spec import DiffusionLM
from engine.plan import DecodeSpans, IterationPlan
from engine.transfer import to_device

RECORD_AFTER = 32
"""A shape that was not recorded at load is recorded when it has come so many times: recording takes as long as hundreds
of steps."""

MAX_GRAPHS = 128
"""Each keeps some megabytes of addresses and kernels."""

_FIELDS = (
    "slot",
    "start",
    "end",
    "q_start",
    "kv_end",
    "step",
    "total_step",
    "prompt_len",
    "limit",
    "force",
    "finished",
)
_DECIDED = ("slot", "start", "end", "step", "total_step", "prompt_len", "limit", "force")


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a recorded step depends on beside the contents of memory. ``drawn`` and ``filtered`` as in DecodeSpans, of
    all blocks alike."""

    num_rows: int
    query_len: int
    width: int
    decoder: str
    drawn: bool = False
    filtered: bool = False


def shape_of(plan: IterationPlan) -> StepShape | None:
    """The shape of a plan that a recorded step can execute, without padding; None for all others: those with prompts or
    commits, sliding windows, rows or blocks of different lengths, several decoders, guidance, transforms, deferred
    tokens, drift, growing canvases or soft inputs."""
    rows, decoded = plan.rows, plan.decoded
    if len(decoded.groups) != 1 or len(rows.slot_R) != len(decoded) or (rows.slot_R != decoded.slot_N).any():
        return None
    if plan.soft is not None or plan.drift is not None or decoded.probes is not None:
        return None
    query_R, width_N = rows.q_end_R - rows.q_start_R, decoded.end_N - decoded.start_N
    uneven = any((values != values[0]).any() for values in (query_R, width_N, decoded.drawn_N, decoded.filtered_N))
    special = decoded.deferred_N | decoded.first_only_N | (decoded.guide_slot_N >= 0) | (decoded.transforms_N != 0)
    if uneven or special.any() or rows.kv_start_R.any():
        return None
    numbers = len(decoded), int(query_R[0]), int(width_N[0])
    return StepShape(*numbers, decoded.groups[0][0], bool(decoded.drawn_N[0]), bool(decoded.filtered_N[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """What a step works on; none of it may move while graphs are kept. Padding rows compute in ``spare_slot``, whose
    canvas has no masks and whose K/V page nobody else has."""

    model: DiffusionLM
    canvas: Canvas
    columns: Columns
    dispatch: DecoderDispatch
    decider: Decider
    table: PageTable
    attention: AttentionWay
    spare_slot: int


class RecordedStep:
    """One shape's graph with its buffers: ``numbers`` ``[F, R]`` in, ``packed`` ``[R, C]`` out."""

    def __init__(self, shape: StepShape, parts: StepParts, backend: GraphBackend) -> None:
        self._shape = shape
        self._parts = parts
        device = parts.canvas.tokens.device
        nobody = {"slot": parts.spare_slot, "end": shape.width, "kv_end": shape.query_len, "step": 1, "finished": 1}
        column_F1 = np.array([[nobody.get(name, 0)] for name in _FIELDS], np.int64)
        self._padding_FR = column_F1.repeat(shape.num_rows, 1)
        self._numbers = to_device(self._padding_FR.copy(), device)
        block_M = np.repeat(np.arange(shape.num_rows), shape.width)
        offset_M = np.tile(np.arange(shape.width), shape.num_rows)
        self._places = Places(to_device(block_M, device), to_device(offset_M, device), block_M)
        self._decoded = _alike(shape)
        self._edits_N = torch.full((shape.num_rows,), parts.dispatch.edits(shape.decoder), device=device)
        self.packed = torch.zeros((shape.num_rows, 2 * shape.width + 1), dtype=torch.int64, device=device)
        self._replay: Callable[[], None] = backend.record(self._step)

    def run(self, plan: IterationPlan) -> Tensor:
        """The results of the plan's steps, one after the other ``[steps, N, C]``."""
        self._load(plan)
        results = []
        for _ in range(plan.num_steps):
            self._replay()
            results.append(self.packed[: len(plan.decoded)].clone())
        return torch.stack(results)

    def _load(self, plan: IterationPlan) -> None:
        """Fill the buffer; rows that the plan does not have are nobody's."""
        rows, decoded, numbers_FR = plan.rows, plan.decoded, self._padding_FR.copy()
        given = {name: getattr(decoded, f"{name}_N") for name in _DECIDED}
        given |= {"q_start": rows.q_start_R, "kv_end": rows.kv_end_R, "finished": np.zeros(len(decoded), np.int64)}
        for number, name in enumerate(_FIELDS):
            numbers_FR[number, : len(decoded)] = given[name]
        self._numbers.copy_(to_device(numbers_FR, self._numbers.device), non_blocking=True)

    def _step(self) -> None:
        """What is recorded: one step from the buffer, which then says where the next one stands."""
        parts, shape = self._parts, self._shape
        numbers = dict(zip(_FIELDS, self._numbers.unbind(0), strict=True))
        q_start_R, finished_R = numbers.pop("q_start"), numbers.pop("finished")
        kv_end_R, force_R = numbers.pop("kv_end"), numbers.pop("force")
        offset_Q = torch.arange(shape.query_len, device=q_start_R.device)
        position_T = (q_start_R[:, None] + offset_Q).flatten()
        slot_T = numbers["slot"][:, None].expand(-1, shape.query_len).flatten()
        rows = TokenRows.uniform(numbers["slot"], q_start_R, kv_end_R, shape.query_len, parts.table)
        embeddings_TD = parts.model.embed(parts.canvas.gather(slot_T, position_T))
        hidden_TD = parts.model(embeddings_TD, position_T, parts.attention.bind_tensors(rows))
        row_R = torch.arange(shape.num_rows, device=q_start_R.device)
        spans = DeviceSpans(
            **{f"{name}_N": values_R for name, values_R in numbers.items()},
            first_token_N=row_R * shape.query_len + numbers["start"] - q_start_R,
            guide_token_N=torch.full_like(q_start_R, -1),
            force_N=force_R.bool(),
            first_only_N=torch.zeros_like(q_start_R, dtype=torch.bool),
            edits_N=self._edits_N,
            places=self._places,
            finished_N=finished_R.bool(),
        )
        self.packed.copy_(parts.decider.decide(self._decoded, spans, shape.width, hidden_TD))
        after = spans.after(self.packed, shape.width, parts.model.spec.mask_token_id)
        assert after.finished_N is not None
        for name, values_N in (
            ("step", after.step_N),
            ("total_step", after.total_step_N),
            ("finished", after.finished_N),
        ):
            self._numbers[_FIELDS.index(name)].copy_(values_N)


def _alike(shape: StepShape) -> DecodeSpans:
    """The host's side of a recorded step: what all of its blocks have in common, nothing of any one."""
    zeros: IntArray = np.zeros(shape.num_rows, np.int64)
    no: BoolArray = np.zeros(shape.num_rows, np.bool_)
    return DecodeSpans(
        slot_N=zeros,
        start_N=zeros,
        end_N=zeros + shape.width,
        step_N=zeros + 1,
        total_step_N=zeros,
        prompt_len_N=zeros,
        limit_N=zeros,
        first_token_N=zeros,
        guide_slot_N=zeros - 1,
        guide_token_N=zeros - 1,
        ahead_end_N=zeros,
        force_N=no,
        first_only_N=no,
        drawn_N=no | shape.drawn,
        filtered_N=no | shape.filtered,
        deferred_N=no,
        transforms_N=zeros,
        groups=((shape.decoder, 0, shape.num_rows),),
    )


class StepGraphs:
    """Owns the recorded steps of a rank, for up to ``largest`` rows."""

    def __init__(self, parts: StepParts, backend: GraphBackend, largest: int) -> None:
        self._parts = parts
        self._backend = backend
        self._sizes = ladder(largest)
        self._recorded: dict[StepShape, RecordedStep] = {}
        self._known: set[StepShape] = set()
        self._seen: Counter[StepShape] = Counter()
        self._with_room: set[str] = set()
        self._num_moves = parts.columns.num_moves

    @torch.inference_mode()
    def warm_up(self, kind: StepShape) -> None:
        """Record steps of this kind for every number of rows, the largest first: later ones fit into its memory."""
        self._parts.dispatch.prepare(kind.decoder, kind.width)
        self._make_room(kind.decoder)
        self._num_moves = self._parts.columns.num_moves
        for size in reversed(self._sizes):
            self._record(_sized(kind, size))

    def find(self, plan: IterationPlan) -> RecordedStep | None:
        """The recorded step that executes the plan; None where the plan or its shape is not of that kind."""
        shape = shape_of(plan)
        if shape is None or not self._admits(shape):
            return None
        size = rung(self._sizes, shape.num_rows)
        return None if size is None else self._find(_sized(shape, size))

    def _find(self, shape: StepShape) -> RecordedStep | None:
        self._make_room(shape.decoder)
        if self._parts.columns.num_moves != self._num_moves:  # addresses in the graphs are no columns any more
            self._recorded.clear()
            self._num_moves = self._parts.columns.num_moves
        if shape not in self._recorded:
            self._seen[shape] += 1
            wanted = shape in self._known or self._seen[shape] >= RECORD_AFTER
            if not wanted or len(self._recorded) >= MAX_GRAPHS:
                return None
            self._record(shape)
        return self._recorded[shape]

    def _make_room(self, decoder: str) -> None:
        """Large columns have rows for the slots that needed them; the spare one needs them once a step is recorded."""
        if decoder not in self._with_room:
            for prefix in (f"knobs.{decoder}", f"state.{decoder}"):
                self._parts.columns.write(prefix, self._parts.spare_slot, {})
            self._with_room.add(decoder)

    def _admits(self, shape: StepShape) -> bool:
        """Padding rows need a page for their tokens; divergences need the host."""
        return shape.query_len <= self._parts.table.page_size and not self._parts.dispatch.diverges(shape.decoder)

    def _record(self, shape: StepShape) -> None:
        self._recorded[shape] = RecordedStep(shape, self._parts, self._backend)
        self._known.add(shape)


def _sized(kind: StepShape, num_rows: int) -> StepShape:
    return StepShape(num_rows, kind.query_len, kind.width, kind.decoder, kind.drawn, kind.filtered)
