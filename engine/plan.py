"""One forward as data: what rank 0 decides on and every rank executes.

Shape legend: R rows, T tokens, N decoded blocks, B width of the widest decoded block. Host arrays are numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.cache.block_manager import KVCopy
from engine.cache.policy import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a forward: feed the canvas tokens of ``[q_start, q_end)`` of a slot, store their K/V, attend over
    ``[kv_start, kv_end)``. The forward's tokens are the query spans laid end to end in row order."""

    slot_R: IntArray
    q_start_R: IntArray
    q_end_R: IntArray
    kv_start_R: IntArray
    kv_end_R: IntArray

    @property
    def offset_R(self) -> IntArray:
        """Index of each row's first token among the forward's tokens."""
        lengths = self.q_end_R - self.q_start_R
        offsets: IntArray = np.cumsum(lengths) - lengths
        return offsets

    def tokens(self) -> tuple[IntArray, IntArray]:
        """Slot and position of every token, ``[T]`` each."""
        lengths = self.q_end_R - self.q_start_R
        slot_T = np.repeat(self.slot_R, lengths)
        shift_T = np.repeat(self.q_start_R - self.offset_R, lengths)
        return slot_T, np.arange(len(slot_T)) + shift_T


@dataclass(frozen=True, slots=True)
class LengthProbes:
    """Sequences whose canvas may grow: what to measure of them. One entry per probe (legend: P probes).

    ``block_P`` is the probed block among the decided ones, ``[start_P, end_P)`` the generated part of its canvas, all
    of which the forward computes; ``first_token_P`` locates ``start_P`` among the forward's tokens, ``guide_token_P``
    that of the unconditional twin (-1: none). ``window_P`` is how many expected end-of-text positions count. A block
    whose sureness of the end is below ``hold_below_P`` decides nothing in this forward.
    """

    block_P: IntArray
    start_P: IntArray
    end_P: IntArray
    first_token_P: IntArray
    guide_token_P: IntArray
    window_P: IntArray
    hold_below_P: FloatArray

    def __len__(self) -> int:
        return len(self.block_P)


def _nothing() -> IntArray:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class DecodeSpans:
    """Blocks that the forward decides on, ordered so that the rows of a decoder are adjacent.

    ``first_token_N`` locates the block's first token among the forward's tokens, ``guide_token_N`` that of its
    unconditional twin in ``guide_slot_N`` (-1: none). ``ahead_end_N`` is the end of the next block where this forward
    computes it as well, else that of the decided block. ``limit_N`` is where the completion ends. ``force_N`` fills all
    masks of blocks that took too many steps, ``first_only_N`` lets only the first position be filled. ``drawn_N``,
    ``filtered_N`` (top-k or top-p) and ``deferred_N`` tell which blocks need that work, bit i of ``transforms_N``
    whether the i-th of ``TRANSFORMS`` is used. ``groups`` are (decoder, first row, end row). ``probes`` are those of
    blocks whose canvas may grow. ``open_block_M`` and ``open_offset_M`` are the positions that want a candidate, in
    order: masks, and for decoders that edit whatever was not given (legend: M).
    """

    slot_N: IntArray
    start_N: IntArray
    end_N: IntArray
    step_N: IntArray
    total_step_N: IntArray
    prompt_len_N: IntArray
    limit_N: IntArray
    first_token_N: IntArray
    guide_slot_N: IntArray
    guide_token_N: IntArray
    ahead_end_N: IntArray
    force_N: BoolArray
    first_only_N: BoolArray
    drawn_N: BoolArray
    filtered_N: BoolArray
    deferred_N: BoolArray
    transforms_N: IntArray
    groups: tuple[tuple[str, int, int], ...]
    open_block_M: IntArray = field(default_factory=_nothing)
    open_offset_M: IntArray = field(default_factory=_nothing)
    probes: LengthProbes | None = None

    def __len__(self) -> int:
        return len(self.slot_N)

    @property
    def width(self) -> int:
        """B."""
        return int((self.end_N - self.start_N).max(initial=0))


@dataclass(frozen=True, slots=True)
class SoftInputs:
    """Masked positions that the forward computes of requests whose transforms change what the network is fed.

    ``block_P`` is the request's place among the decoded blocks, ``token_P`` the position's place among the forward's
    tokens, ``guide_token_P`` that in the unconditional twin (-1: none). ``known_P``: the forward also computes the
    position whose logits decide this one.
    """

    block_P: IntArray
    position_P: IntArray
    token_P: IntArray
    guide_token_P: IntArray
    known_P: BoolArray

    def __len__(self) -> int:
        return len(self.block_P)

    def part(self, chosen: IntArray | slice) -> SoftInputs:
        """The chosen ones alone."""
        return SoftInputs(*(getattr(self, name)[chosen] for name in SoftInputs.__slots__))


@dataclass(frozen=True, slots=True)
class Admission:
    """A canvas that enters a slot before the forward: its tokens (what is no mask is given: never edited), its pages,
    and, unless it is the unconditional twin of another, how its request is decoded."""

    slot: int
    tokens: IntArray
    pages: IntArray
    decoding: Decoding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How a request is decoded: its decoder, block length and all knobs; ``transform_knobs`` of the transforms in
    use."""

    decoder: str
    block_length: int
    decoder_knobs: Mapping[str, object]
    sampling_knobs: Mapping[str, object]
    transform_knobs: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class DriftProbe:
    """Tokens of the forward whose K/V are compared with the stored ones, and the decided block that each stands for.
    One entry per token (legend: M)."""

    token_M: IntArray
    block_M: IntArray


@dataclass(frozen=True, slots=True)
class Splice:
    """A running canvas changes its length before the forward: ``tokens`` take the place of ``removed`` positions from
    ``at`` on, and what stands behind moves. ``canvas_len`` is the new length."""

    slot: int
    at: int
    removed: int
    tokens: IntArray
    canvas_len: int


@dataclass(frozen=True, slots=True)
class IterationPlan:
    """One forward, complete and independent of any host state: what rank 0 sends to the other ranks. ``soft`` is None
    where no request uses it; ``copies`` and ``splices`` come before ``admitted``. ``traceparent`` is set where the
    ranks make a span of this forward (see ``engine.telemetry``). With ``num_steps`` above 1 the ranks take so many
    denoising steps with the same rows before the host looks; blocks that are complete by then are left as they are."""

    admitted: tuple[Admission, ...]
    rows: Rows
    decoded: DecodeSpans
    soft: SoftInputs | None = None
    splices: tuple[Splice, ...] = ()
    drift: DriftProbe | None = None
    traceparent: str | None = None
    num_steps: int = 1
    copies: tuple[KVCopy, ...] = ()


@dataclass(frozen=True, slots=True)
class LengthReading:
    """What was measured of probed blocks, one entry per decided block (nan where none was).

    ``eos_N`` is how sure the model is of the end (see ``engine.length``), ``doubt_N`` the probability of the least
    certain candidate that was not written (nan without one) and ``doubt_at_N`` its offset within the block.
    """

    eos_N: FloatArray
    doubt_N: FloatArray
    doubt_at_N: IntArray


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the host learns: the decided blocks as they now stand, which of them their decoder calls complete, and the
    probability that each token written by this step had in the model's distribution (nan: it is not the model's own
    candidate for that place; elsewhere meaningless). ``length`` is there when the plan had probes,
    ``drift_N`` (see ``engine.attention.drift``) when it had a drift probe. ``forward_s`` is the network's time, None
    where nothing was decided. ``later`` are the results of the plan's further steps, in order, and ``replayed`` says
    that the steps were those of a CUDA graph; then ``forward_s`` is the time of all of it."""

    tokens_NB: IntArray
    done_N: BoolArray
    probability_NB: FloatArray
    length: LengthReading | None = None
    drift_N: FloatArray | None = None
    forward_s: float | None = None
    later: tuple[StepResult, ...] = ()
    replayed: bool = False


def soft_inputs(
    rows: Rows, twin_row_R: IntArray, masked_T: BoolArray, slot_N: IntArray, soft_N: BoolArray, logit_shift: int
) -> SoftInputs:
    """The masked positions that ``rows`` compute of those decided slots that are ``soft_N``.

    ``twin_row_R`` is the row of each row's unconditional twin (-1: none); twins have the same positions and are no
    entries of their own.
    """
    row_T = np.repeat(np.arange(len(rows.slot_R)), rows.q_end_R - rows.q_start_R)
    block_of = np.full(int(max(rows.slot_R.max(), slot_N.max())) + 1, -1)
    block_of[slot_N[soft_N]] = np.flatnonzero(soft_N)
    wanted_R = block_of[rows.slot_R] >= 0
    wanted_R[twin_row_R[twin_row_R >= 0]] = False
    token_P = np.flatnonzero(masked_T & wanted_R[row_T])
    row_P = row_T[token_P]
    position_P = rows.q_start_R[row_P] + token_P - rows.offset_R[row_P]
    twin_P = twin_row_R[row_P]
    return SoftInputs(
        block_P=block_of[rows.slot_R[row_P]],
        position_P=position_P,
        token_P=token_P,
        guide_token_P=np.where(twin_P >= 0, token_P + rows.offset_R[twin_P] - rows.offset_R[row_P], -1),
        known_P=position_P - logit_shift >= rows.q_start_R[row_P],
    )


def without_blocks(decoded: DecodeSpans, result: StepResult, held_N: BoolArray) -> tuple[DecodeSpans, StepResult]:
    """Spans and result without the blocks in ``held_N``; what only plans need (groups, probes, open positions) is left
    out."""
    if not held_N.any():
        return decoded, result
    others = {name: getattr(decoded, name)[~held_N] for name in DecodeSpans.__slots__ if name.endswith("_N")}
    length = result.length
    if length is not None:
        length = LengthReading(*(getattr(length, name)[~held_N] for name in LengthReading.__slots__))
    drift_N = result.drift_N[~held_N] if result.drift_N is not None else None
    kept = StepResult(
        result.tokens_NB[~held_N], result.done_N[~held_N], result.probability_NB[~held_N], length, drift_N
    )
    return DecodeSpans(**others, groups=()), kept
