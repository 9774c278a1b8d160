"""The host's view of every slot, as arrays: where a sequence stands, what it has cost, and a copy of its canvas.

Shape legend: S slots, L positions of a slot, N decoded blocks, B width of the widest decoded block, K stop ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.cache.policy import BoolArray, FloatArray, IntArray, Progress
from engine.columns import MAX_STOP_IDS
from engine.sequence import Suspension


@dataclass(frozen=True, slots=True)
class BlockStatus:
    """Decided blocks after a step, one entry each.

    ``complete_N``: no mask is left and the decoder is done with it. ``decided_to_N`` is the absolute position before
    which all is final: the first mask, in a complete block that of a later one, the request's limit when there is
    none; the block's start as long as a decoder may edit it. ``stop_N`` is the first generated stop id before that
    (-1: none), ``completion_len_N`` how many tokens of the completion are final.
    """

    decided_to_N: IntArray
    complete_N: BoolArray
    stop_N: IntArray
    completion_len_N: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTraits:
    """What does not change while a sequence runs: numbers of its policy and decoder in the manager's tables, its
    twin's slot (-1: none), the steps that a block may take, whether its decoder edits, and which optional work its
    steps need (bit i of ``transforms``: the i-th of ``TRANSFORMS``)."""

    policy: int
    decoder: int
    guide_slot: int
    max_steps: int
    edits: bool
    drawn: bool
    filtered: bool
    deferred: bool
    watched: bool
    transforms: int


class SlotTable:
    """Owns the progress of all slots; only IterationManager writes it.

    ``limit`` is the end of the completion (prompt + max_tokens): the canvas of a block-causal model goes on to the
    block boundary behind it. ``closing`` marks a sequence that only waits for its last commit. ``revealed_at`` holds
    the 1-based denoising step that filled a position, 0 for masks and for the prompt; ``probability`` what the model
    gave the token at that step (nan: it was not the model's candidate there, or given). ``handicap`` is how many
    forwards a sequence goes behind one of priority 0, ``turn`` orders long prompts;
    ``given_len`` positions are announced to others once their K/V are there (0: none), ``paused`` ones wait for it; of
    ``reused`` positions the K/V came from other requests. ``stale_steps``, ``drift`` and
    ``decided_start`` are those of Progress.
    """

    def __init__(self, num_slots: int, max_len: int, mask_token_id: int) -> None:
        def numbers() -> IntArray:
            return np.zeros(num_slots, np.int64)

        def flags() -> BoolArray:
            return np.zeros(num_slots, np.bool_)

        self.mask_token_id = mask_token_id
        self.running, self.closing, self.refreshed, self.fresh = flags(), flags(), flags(), flags()
        self.prompt_len, self.canvas_len, self.limit = numbers(), numbers(), numbers()
        self.block_start, self.block_end, self.block_length = numbers(), numbers(), numbers()
        self.cached_len, self.step, self.last_run = numbers(), numbers(), numbers()
        self.forwards, self.denoising_steps, self.positions = numbers(), numbers(), numbers()
        self.refreshes, self.turn, self.handicap, self.given_len = numbers(), numbers(), numbers(), numbers()
        self.paused, self.reused = flags(), numbers()
        self.policy, self.decoder, self.guide_slot, self.max_steps = numbers(), numbers(), numbers(), numbers()
        self.edits, self.drawn, self.filtered, self.deferred = flags(), flags(), flags(), flags()
        self.watched = flags()
        self.transforms = numbers()
        self.stale_steps, self.decided_start = numbers(), numbers()
        self.drift: FloatArray = np.zeros(num_slots, np.float32)
        self.stop_ids: IntArray = np.full((num_slots, MAX_STOP_IDS), -1, np.int64)
        self.tokens: IntArray = np.full((num_slots, max_len + 1), mask_token_id, np.int64)
        self.revealed_at: IntArray = np.zeros((num_slots, max_len + 1), np.int64)
        self.probability: FloatArray = np.full((num_slots, max_len + 1), np.nan, np.float32)
        self._knobs: dict[str, npt.NDArray[np.float64]] = {}

    def open(
        self,
        slot: int,
        canvas: IntArray,
        prompt_len: int,
        max_tokens: int,
        first_block: tuple[int, int],
        block_length: int,
        stop_ids: Sequence[int],
        traits: SlotTraits,
        policy_knobs: Mapping[str, float],
    ) -> None:
        """Start a sequence; everything of the slot's former owner is gone."""
        self.tokens[slot], self.revealed_at[slot], self.probability[slot] = self.mask_token_id, 0, np.nan
        self.tokens[slot, : len(canvas)] = canvas
        self.prompt_len[slot], self.canvas_len[slot] = prompt_len, len(canvas)
        self.limit[slot] = prompt_len + max_tokens
        self.block_start[slot], self.block_end[slot] = first_block
        self.block_length[slot] = block_length
        for counter in (self.cached_len, self.step, self.last_run, self.forwards, self.denoising_steps, self.positions):
            counter[slot] = 0
        self.running[slot], self.closing[slot], self.refreshed[slot] = True, False, False
        self.stale_steps[slot], self.drift[slot], self.decided_start[slot] = -1, 0.0, first_block[0]
        self.refreshes[slot], self.fresh[slot] = 0, False
        self.given_len[slot], self.paused[slot], self.reused[slot] = 0, False, 0
        self.stop_ids[slot] = -1
        self.stop_ids[slot, : len(stop_ids)] = stop_ids
        for name in SlotTraits.__slots__:
            getattr(self, name)[slot] = getattr(traits, name)
        for name, value in policy_knobs.items():
            self._knobs.setdefault(name, np.zeros(len(self.running)))[slot] = value

    def splice(self, slot: int, at: int, removed: int, tokens: IntArray) -> None:
        """Put ``tokens`` in the place of ``removed`` positions from ``at`` on; what stands behind moves. The block
        begins anew: its K/V and what a decoder remembers of its positions are of no use any more."""
        masked = self.mask_token_id
        _splice(self.tokens[slot], at, removed, tokens, masked)
        _splice(self.revealed_at[slot], at, removed, np.zeros(len(tokens), np.int64), 0)
        _splice(self.probability[slot], at, removed, np.full(len(tokens), np.nan, np.float32), np.nan)
        self.canvas_len[slot] += len(tokens) - removed
        self.block_end[slot] = min(self.block_start[slot] + self.block_length[slot], self.canvas_len[slot])
        self.step[slot], self.refreshed[slot], self.stale_steps[slot] = 0, False, -1

    def suspend(self, slot: int) -> Suspension:
        """What a sequence takes with it that stops at the beginning of the block in progress."""
        generated = slice(self.prompt_len[slot], self.canvas_len[slot])
        undone = np.arange(self.prompt_len[slot], self.canvas_len[slot]) >= self.block_start[slot]
        return Suspension(
            forwards=int(self.forwards[slot]),
            denoising_steps=int(self.denoising_steps[slot] - self.step[slot]),
            positions=int(self.positions[slot]),
            reused=int(self.reused[slot]),
            revealed_at=np.where(undone, 0, self.revealed_at[slot, generated]),
            probability=np.where(undone, np.float32(np.nan), self.probability[slot, generated]),
        )

    def resume(self, slot: int, suspended: Suspension) -> None:
        """Give a sequence that was just opened what it took with it."""
        generated = slice(self.prompt_len[slot], self.canvas_len[slot])
        self.revealed_at[slot, generated] = suspended.revealed_at
        self.probability[slot, generated] = suspended.probability
        self.forwards[slot], self.positions[slot] = suspended.forwards, suspended.positions
        self.denoising_steps[slot], self.reused[slot] = suspended.denoising_steps, suspended.reused

    def close(self, slot: int) -> None:
        """The sequence takes no part in any later plan."""
        self.running[slot] = False

    def progress(self, slots_n: IntArray, chunk_len_n: IntArray) -> Progress:
        """What cache policies are told of these slots."""
        return Progress(
            canvas_len=self.canvas_len[slots_n],
            block_start=self.block_start[slots_n],
            block_end=self.block_end[slots_n],
            block_length=self.block_length[slots_n],
            cached_len=self.cached_len[slots_n],
            step=self.step[slots_n],
            total_steps=self.denoising_steps[slots_n],
            refreshed=self.refreshed[slots_n],
            refreshes=self.refreshes[slots_n],
            fresh=self.fresh[slots_n],
            stale_steps=self.stale_steps[slots_n],
            drift=self.drift[slots_n],
            decided_start=self.decided_start[slots_n],
            chunk_len=chunk_len_n,
            knobs=self.knobs(slots_n),
        )

    def knobs(self, slots: IntArray) -> Mapping[str, npt.NDArray[np.float64]]:
        """Policy parameters at ``slots``, by name."""
        return {name: column[slots] for name, column in self._knobs.items()}

    def stops_before(self, slot: int, position: int) -> bool:
        """Whether a stop id has been generated before ``position``."""
        generated = self.tokens[slot, self.prompt_len[slot] : position]
        return bool(np.isin(generated, self.stop_ids[slot][self.stop_ids[slot] >= 0]).any())

    def completion(self, slot: int) -> IntArray:
        """Generated part of the canvas up to the request's limit, masks and all."""
        return self.tokens[slot, self.prompt_len[slot] : self.limit[slot]]

    def probabilities(self, slot: int) -> FloatArray:
        """What the model gave the tokens of :meth:`completion` when they were filled in."""
        return self.probability[slot, self.prompt_len[slot] : self.limit[slot]]

    def final_len(self, slot: int) -> tuple[int, int]:
        """Length of the completion that is final, and the stop id that ends it (-1: none)."""
        tokens = self.completion(slot)
        undecided = tokens == self.mask_token_id
        stops = np.isin(tokens, self.stop_ids[slot][self.stop_ids[slot] >= 0])
        ends = np.flatnonzero(undecided | stops)
        if not len(ends):
            return len(tokens), -1
        return int(ends[0]), int(tokens[ends[0]]) if stops[ends[0]] else -1

    def absorb(
        self,
        slot_N: IntArray,
        start_N: IntArray,
        end_N: IntArray,
        tokens_NB: IntArray,
        done_N: BoolArray,
        probability_NB: FloatArray,
    ) -> BlockStatus:
        """Take over decided blocks and say how they stand."""
        position_NB = start_N[:, None] + np.arange(tokens_NB.shape[1])
        valid_NB = position_NB < end_N[:, None]
        self._write(slot_N, position_NB, valid_NB, tokens_NB, probability_NB)
        masked_NB = valid_NB & (tokens_NB == self.mask_token_id)
        complete_N = ~masked_NB.any(axis=1) & done_N
        decided_to_N = np.minimum(_first(masked_NB, start_N, end_N), self.limit[slot_N])
        decided_to_N[complete_N] = self.next_mask(slot_N[complete_N], end_N[complete_N])
        open_N = self.edits[slot_N] & ~complete_N
        decided_to_N[open_N] = start_N[open_N]
        stop_at_N, stop_N = self._stops(slot_N, position_NB, valid_NB & ~masked_NB, tokens_NB, decided_to_N)
        return BlockStatus(
            decided_to_N=decided_to_N,
            complete_N=complete_N,
            stop_N=stop_N,
            completion_len_N=np.maximum(np.minimum(stop_at_N, decided_to_N) - self.prompt_len[slot_N], 0),
        )

    def num_masks(self, slot_n: IntArray) -> IntArray:
        """Masks in the current block of each slot."""
        block_M, _ = self.open_places(slot_n, np.zeros(len(slot_n), np.bool_))
        counts: IntArray = np.bincount(block_M, minlength=len(slot_n))
        return counts

    def open_places(self, slot_N: IntArray, first_only_N: BoolArray) -> tuple[IntArray, IntArray]:
        """Block and offset of every position of the current blocks that wants a candidate: masks (of ``first_only_N``
        the first place alone), and where a decoder edits also what was not given."""
        start_N, end_N = self.block_start[slot_N], self.block_end[slot_N]
        offset_B = np.arange(int((end_N - start_N).max(initial=0)))
        position_NB = start_N[:, None] + offset_B
        inside_NB = (position_NB < end_N[:, None]) & ~(first_only_N[:, None] & (offset_B > 0))
        place_NB = slot_N[:, None], np.where(inside_NB, position_NB, self.tokens.shape[1] - 1)
        open_NB = self.tokens[place_NB] == self.mask_token_id
        open_NB |= self.edits[slot_N, None] & (self.revealed_at[place_NB] > 0)
        block_M, offset_M = np.nonzero(open_NB & inside_NB)
        return block_M, offset_M

    def next_mask(self, slot_n: IntArray, from_n: IntArray) -> IntArray:
        """First undecided position at or behind ``from_n`` of each slot, the request's limit when there is none."""
        position_L = np.arange(self.tokens.shape[1])
        masked_nL = (self.tokens[slot_n] == self.mask_token_id) & (position_L >= from_n[:, None])
        first_n = np.where(masked_nL.any(axis=1), masked_nL.argmax(axis=1), self.tokens.shape[1])
        limited: IntArray = np.minimum(first_n, self.limit[slot_n])
        return limited

    def _write(
        self,
        slot_N: IntArray,
        position_NB: IntArray,
        valid_NB: BoolArray,
        tokens_NB: IntArray,
        probability_NB: FloatArray,
    ) -> None:
        column_NB = np.where(valid_NB, position_NB, self.tokens.shape[1] - 1)
        row, column = np.nonzero(valid_NB & (tokens_NB != self.tokens[slot_N[:, None], column_NB]))
        places = slot_N[row], position_NB[row, column]
        tokens = tokens_NB[row, column]
        masked = tokens == self.mask_token_id
        self.tokens[places] = tokens
        self.revealed_at[places] = np.where(masked, 0, self.denoising_steps[slot_N[row]])
        self.probability[places] = np.where(masked, np.nan, probability_NB[row, column])

    def _stops(
        self,
        slot_N: IntArray,
        position_NB: IntArray,
        filled_NB: BoolArray,
        tokens_NB: IntArray,
        decided_to_N: IntArray,
    ) -> tuple[IntArray, IntArray]:
        """Position and id of the first generated stop id that is final; the width of the table and -1 without one."""
        stops_NB = (tokens_NB[:, :, None] == self.stop_ids[slot_N][:, None, :]).any(axis=2) & filled_NB
        stops_NB &= (position_NB >= self.prompt_len[slot_N, None]) & (position_NB < decided_to_N[:, None])
        first_N = stops_NB.argmax(axis=1)[:, None]
        found_N = stops_NB.any(axis=1)
        at_N = np.take_along_axis(position_NB, first_N, axis=1)[:, 0]
        id_N = np.take_along_axis(tokens_NB, first_N, axis=1)[:, 0]
        return np.where(found_N, at_N, self.tokens.shape[1]), np.where(found_N, id_N, -1)


def _splice(row: npt.NDArray[Any], at: int, removed: int, values: npt.NDArray[Any], fill: float) -> None:
    """Replace part of ``row`` in place; what leaves it at the end is lost, ``fill`` comes in there."""
    spliced = np.concatenate((row[:at], values, row[at + removed :]))[: len(row)]
    row[:] = fill
    row[: len(spliced)] = spliced


def _first(flags_NB: BoolArray, start_N: IntArray, end_N: IntArray) -> IntArray:
    """Absolute position of the first flag of each row, its end when there is none."""
    return np.where(flags_NB.any(axis=1), start_N + flags_NB.argmax(axis=1), end_N)
