"""Which running canvases grow, and where: the state behind ``engine.length``.

Shape legend: S slots, N decoded blocks, P probes among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.cache.policy import BoolArray, IntArray
from engine.length import AdaptiveLength, wants_expansion, wants_growth
from engine.plan import DecodeSpans, LengthProbes, LengthReading, Rows, Splice
from engine.slots import SlotTable

_NUMBERS = ("length_growth", "eos_window", "expansion")
_SHARES = ("eos_confidence", "expand_confidence", "expand_until")


class CanvasGrowth:
    """Owns the length rules of running requests and the splices that the next plan carries to every rank.

    A request with a rule is first sized: as long as no end is in sight its first block decides nothing and the canvas
    grows at its end. The forward that finds it long enough is its first denoising step. Loops run over the canvases
    that change in a step, never over the batch.

    Unfused, as published: forwards that size decide nothing, half a window of end-of-text follows the sized canvas,
    and a request ends with its canvas. Fused, a canvas that is filled without an end goes on block by block up to
    ``max_tokens``. ``eos_token_id`` is None for models without one, whose requests have no rule.
    """

    def __init__(self, slots: SlotTable, eos_token_id: int | None, logit_shift: int, *, fused: bool) -> None:
        num_slots = len(slots.running)
        self._slots = slots
        self._eos_token_id = eos_token_id
        self._logit_shift = logit_shift
        self._fused = fused
        self._adaptive = np.zeros(num_slots, np.bool_)
        self._sized = np.zeros(num_slots, np.bool_)
        self._numbers = {name: np.zeros(num_slots, np.int64) for name in _NUMBERS}
        self._shares = {name: np.zeros(num_slots, np.float32) for name in _SHARES}
        self._splices: list[Splice] = []

    def open(self, slot: int, rule: AdaptiveLength.Params | None) -> None:
        """A request begins in ``slot``."""
        self._adaptive[slot], self._sized[slot] = rule is not None, False
        if rule is not None:
            for columns in (self._numbers, self._shares):
                for name, column in columns.items():
                    column[slot] = getattr(rule, name)

    def close(self, slot: int) -> None:
        """Whatever was to happen to the canvas in ``slot`` does not happen any more."""
        self._splices = [splice for splice in self._splices if splice.slot not in self._with_twin(slot)]
        self._adaptive[slot] = False

    def adaptive(self, slot_n: IntArray) -> BoolArray:
        """Whose canvas may grow."""
        adaptive_n: BoolArray = self._adaptive[slot_n]
        return adaptive_n

    def take_splices(self) -> tuple[Splice, ...]:
        """The changes since the last plan, in order."""
        taken, self._splices = tuple(self._splices), []
        return taken

    def probes(self, decoded: DecodeSpans, rows: Rows, row_N: IntArray, twin_N: IntArray) -> LengthProbes | None:
        """What this forward can tell of lengths; None when nobody asks. ``row_N`` is the row that decides each block,
        ``twin_N`` that of its twin."""
        slot_N, slots = decoded.slot_N, self._slots
        if not self._adaptive[slot_N].any():
            return None
        start_N = slots.prompt_len[slot_N]
        computed_N = (rows.q_start_R[row_N] <= start_N - self._logit_shift) & (
            rows.q_end_R[row_N] == slots.canvas_len[slot_N]
        )
        has_room_N = self._room(slot_N) > 0
        expands_N = (self._shares["expand_confidence"][slot_N] > 0) & has_room_N
        sizes_N = ~self._sized[slot_N] & (has_room_N | (not self._fused))
        asked_N = self._adaptive[slot_N] & computed_N & (sizes_N | expands_N)
        block_P = np.flatnonzero(asked_N)
        slot_P = slot_N[block_P]
        inner_P = start_N[block_P] - rows.q_start_R[row_N[block_P]]
        offset_R = rows.offset_R
        twin_P = twin_N[block_P]
        threshold_P = self._shares["eos_confidence"][slot_P] if self._fused else np.float32(np.inf)
        return LengthProbes(
            block_P=block_P,
            start_P=start_N[block_P],
            end_P=slots.canvas_len[slot_P],
            first_token_P=offset_R[row_N[block_P]] + inner_P,
            guide_token_P=np.where(twin_P >= 0, offset_R[twin_P] + inner_P, -1),
            window_P=self._numbers["eos_window"][slot_P],
            hold_below_P=np.where(self._sized[slot_P], -np.inf, threshold_P).astype(np.float32),
        )

    def size(self, decoded: DecodeSpans, reading: LengthReading | None) -> BoolArray:
        """Grow canvases in which no end is in sight; returns which blocks decided nothing for that reason."""
        slot_N = decoded.slot_N
        sizing_N = self._adaptive[slot_N] & ~self._sized[slot_N]
        held_N = np.zeros(len(slot_N), np.bool_)
        if decoded.probes is None or reading is None:
            return held_N
        grows_N = sizing_N & wants_growth(reading.eos_N, self._shares["eos_confidence"][slot_N], self._room(slot_N))
        held_N[decoded.probes.block_P] = reading.eos_N[decoded.probes.block_P] < decoded.probes.hold_below_P
        for slot in slot_N[grows_N]:
            self._append(int(slot), int(self._numbers["length_growth"][slot]), self._slots.mask_token_id)
        for slot in slot_N[sizing_N & ~grows_N]:
            self._sized[slot] = True
            if not self._fused:
                assert self._eos_token_id is not None
                self._append(int(slot), int(self._numbers["eos_window"][slot]) // 2, self._eos_token_id)
        return held_N

    def expand(self, slot_N: IntArray, reading: LengthReading, goes_on_N: BoolArray) -> None:
        """Let the most doubtful position of each unfinished block make room, where the rule asks for it. Its block
        begins anew: what decoders and transforms remember of places would be of other places."""
        slots = self._slots
        wanted_N = goes_on_N & wants_expansion(
            reading.eos_N,
            self._shares["expand_until"][slot_N],
            reading.doubt_N,
            self._shares["expand_confidence"][slot_N],
            self._room(slot_N),
        )
        for slot, offset in zip(slot_N[wanted_N], reading.doubt_at_N[wanted_N], strict=True):
            at = int(slots.block_start[slot] + offset)
            if not slots.stops_before(int(slot), at):
                room = int(slots.limit[slot] - slots.canvas_len[slot])
                self._splice(int(slot), at, 1, min(int(self._numbers["expansion"][slot]), room + 1))

    def extend(self, slot_n: IntArray, next_mask_n: IntArray) -> None:
        """Append a block to canvases that are filled without an end."""
        slots = self._slots
        full_n = self._adaptive[slot_n] & (next_mask_n >= slots.canvas_len[slot_n])
        for slot in slot_n[full_n]:
            self._append(int(slot), int(slots.block_length[slot]), slots.mask_token_id)

    def filled(self, slot_n: IntArray, decided_to_n: IntArray) -> BoolArray:
        """Whether a request ends because its canvas is filled, short of ``max_tokens``."""
        ends: BoolArray = self._adaptive[slot_n] & (decided_to_n >= self._slots.canvas_len[slot_n])
        return ends & (not self._fused)

    def _room(self, slot_n: IntArray) -> IntArray:
        room: IntArray = self._slots.limit[slot_n] - self._slots.canvas_len[slot_n]
        return room

    def _append(self, slot: int, count: int, token_id: int) -> None:
        end = int(self._slots.canvas_len[slot])
        self._splice(slot, end, 0, min(count, int(self._slots.limit[slot]) - end), token_id)

    def _splice(self, slot: int, at: int, removed: int, count: int, token_id: int | None = None) -> None:
        tokens = np.full(count, self._slots.mask_token_id if token_id is None else token_id, np.int64)
        self._slots.splice(slot, at, removed, tokens)
        canvas_len = int(self._slots.canvas_len[slot])
        self._splices += [Splice(place, at, removed, tokens, canvas_len) for place in self._with_twin(slot)]

    def _with_twin(self, slot: int) -> tuple[int, ...]:
        guide = int(self._slots.guide_slot[slot])
        return (slot, guide) if guide >= 0 else (slot,)


def beginning(completion_ids: Sequence[int], rule: AdaptiveLength.Params | None, mask_token_id: int) -> Sequence[int]:
    """The part of a completion that its canvas begins with: as long as the rule says, or as holds all of its given
    tokens and one mask; everything without a rule."""
    if rule is None:
        return completion_ids
    num_given = max((at + 1 for at, token_id in enumerate(completion_ids) if token_id != mask_token_id), default=0)
    return completion_ids[: max(rule.initial_length, num_given + 1)]
