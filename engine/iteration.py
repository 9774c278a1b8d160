"""What each running sequence does in the next forward, and what the forward's result means for it.

Shape legend: S slots, R rows, N decoded blocks. Host arrays are numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace

import numpy as np

from engine.cache.block_manager import Allocation
from engine.cache.policy import BoolArray, CachePolicy, IntArray
from engine.cache.prefix_keys import block_keys
from engine.decoding import DECODERS
from engine.decoding.transform import InputTransform
from engine.decoding.transforms import TRANSFORMS
from engine.drift import drift_probe
from engine.growth import CanvasGrowth
from engine.opening import canvas_of, decoding_of, traits_of
from engine.outputs import FinishReason
from engine.pacing import ForwardBudget, Pacer, handicap
from engine.plan import (
    Admission,
    DecodeSpans,
    IterationPlan,
    Rows,
    SoftInputs,
    StepResult,
    soft_inputs,
    without_blocks,
)
from engine.sequence import Sequence
from engine.sharing import Sharing
from engine.slots import SlotTable
from engine.steps_ahead import Planned, StepsAhead


@dataclass(frozen=True, slots=True)
class SlotEvent:
    """News of one slot: so many tokens of its completion are final, and perhaps it ended."""

    slot: int
    completion_len: int
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None


class IterationManager:
    """Owns the progress of running sequences (``slots``). :meth:`plan` and :meth:`advance` alternate. A plan may stand
    for up to ``steps_per_look`` denoising steps; ``num_idle_positions`` were computed in them for complete blocks."""

    def __init__(
        self,
        slots: SlotTable,
        policies: Mapping[str, CachePolicy],
        budget: ForwardBudget,
        *,
        fused: bool = True,
        logit_shift: int = 0,
        eos_token_id: int | None = None,
        steps_per_look: int = 1,
        sharing: Sharing | None = None,
    ) -> None:
        self.slots = slots
        self.num_idle_positions = 0
        self._ahead = StepsAhead(slots, policies, steps_per_look)
        self._sharing = sharing
        self._policies = policies
        self._policy_names = tuple(policies)
        self._pacer = Pacer(budget)
        self._fused = fused
        self._logit_shift = logit_shift
        self._input_transforms = sum(
            1 << number for number, name in enumerate(TRANSFORMS) if issubclass(TRANSFORMS.get(name), InputTransform)
        )
        # Fast-dLLM decides only the first position of a block of Dream in its refresh pass.
        self._first_only = [not fused and logit_shift > 0 and policy.reuses for policy in policies.values()]
        self._growth = CanvasGrowth(slots, eos_token_id, logit_shift, fused=fused)
        self._in_parts = np.array([policy.in_parts for policy in policies.values()])
        self._measures = np.array([policy.measures for policy in policies.values()])
        self._admissions: list[Admission] = []
        self._decoders: list[str] = []
        self._divergent: list[bool] = []
        self._iteration = 0
        self._kept: IntArray = np.empty(0, np.int64)
        self._cached_len: IntArray = np.empty(0, np.int64)
        self._whole: BoolArray = np.empty(0, np.bool_)
        self._refresh: BoolArray = np.zeros(len(slots.running), np.bool_)

    def admit(self, sequence: Sequence, memory: SequenceOf[Allocation]) -> None:
        """Start a sequence in its slot; with guidance, ``guide_slot`` gets its twin whose prompt is masked.

        ``memory`` is that of the slot and of the twin.
        """
        slot, guide_slot, strategy = sequence.slot, sequence.guide_slot, sequence.strategy
        aligned = self._policies[strategy.cache].pattern == "block_causal"
        canvas, first_block = canvas_of(sequence, self.slots.mask_token_id, aligned=aligned)
        policy, decoder = self._policy_names.index(strategy.cache), self._decoder_number(strategy.decoder)
        self.slots.open(
            slot,
            canvas,
            len(sequence.prompt_ids),
            len(sequence.completion_ids),
            first_block,
            strategy.block_length,
            sequence.stop_ids,
            traits_of(sequence, policy, decoder),
            strategy.cache_knobs(),
        )
        self.slots.cached_len[slot] = self.slots.reused[slot] = memory[0].cached_len
        if sequence.suspended is not None:
            self.slots.resume(slot, sequence.suspended)
            sequence.suspended = None
        if self._sharing is not None:
            self._sharing.open(sequence, memory[0].copies)
        self._growth.open(slot, strategy.length)
        self.slots.last_run[slot] = self._iteration  # behind everyone who is waiting for a turn
        self.slots.handicap[slot] = handicap(sequence.request.priority)
        self.slots.turn[slot] = self._iteration + self.slots.handicap[slot]
        self._admissions.append(Admission(slot, canvas, memory[0].pages, decoding_of(sequence)))
        if guide_slot >= 0:
            twin = canvas.copy()
            twin[: len(sequence.prompt_ids)] = self.slots.mask_token_id
            self._admissions.append(Admission(guide_slot, twin, memory[1].pages))

    def _decoder_number(self, name: str) -> int:
        if name not in self._decoders:
            self._decoders.append(name)
            self._divergent.append(DECODERS.get(name).needs_divergence)
        return self._decoders.index(name)

    def suspend(self, sequence: Sequence) -> None:
        """Take a running sequence out of its slot at the beginning of the block in progress, so that :meth:`admit` goes
        on from there: what is decided before stays, the begun block is decided again."""
        slot, prompt_len = sequence.slot, len(sequence.prompt_ids)
        num_kept = max(int(self.slots.block_start[slot]) - prompt_len, 0)
        kept = self.slots.completion(slot)[:num_kept].tolist()
        sequence.completion_ids = [*kept, *sequence.completion_ids[num_kept:]]
        sequence.suspended = self.slots.suspend(slot)
        if sequence.prefix_keys:
            tokens, salt = self.slots.tokens[slot, : self.slots.block_start[slot]], sequence.request.cache_salt
            sequence.prefix_keys = block_keys(
                tokens.tolist(), sequence.strategy.block_length, salt, sequence.prefix_keys
            )
        self.release(slot)

    def release(self, slot: int) -> None:
        """Forget the sequence in ``slot``; it takes no part in any later plan."""
        if self._sharing is not None:
            self._sharing.close(slot)
        self._growth.close(slot)
        self.slots.close(slot)

    def plan(self) -> IterationPlan | None:
        """The next forward, None when nothing runs."""
        running = np.flatnonzero(self.slots.running & ~self.slots.paused)
        if not len(running):
            return None
        self._iteration += 1
        running, chunk_len = self._paced(running)
        rows, owner_R, decode_row, cached_len = self._spans(running, chunk_len)
        kept = self._within_budget(running, rows, owner_R)
        position = np.full(len(self.slots.running), -1)
        position[running[kept]] = np.arange(len(kept))
        self._kept, self._cached_len = running[kept], cached_len[kept]
        keep_R = position[owner_R] >= 0
        new_row_R = np.cumsum(keep_R) - 1
        rows = Rows(*(getattr(rows, name)[keep_R] for name in Rows.__slots__))
        decode_row = np.where(decode_row[kept] >= 0, new_row_R[decode_row[kept]], -1)
        admitted, self._admissions = tuple(self._admissions), []
        slots = self.slots
        computed_S = np.bincount(rows.slot_R, rows.q_end_R - rows.q_start_R, minlength=len(slots.running))
        whole_S = computed_S == slots.canvas_len
        self._whole = whole_S[self._kept]
        num_steps = self._num_steps(rows, decode_row)
        self._charge(rows, num_steps)
        rows, twin_row_R = self._with_twins(rows)
        decoded = self._decode_spans(rows, decode_row, twin_row_R)
        reusing_N = ~whole_S[decoded.slot_N]
        return IterationPlan(
            admitted,
            rows,
            decoded,
            soft=self._soft_inputs(rows, twin_row_R, decoded),
            splices=self._growth.take_splices(),
            copies=() if self._sharing is None else self._sharing.take_copies(),
            drift=drift_probe(decoded, rows, slots, reusing_N & self._measures[slots.policy[decoded.slot_N]]),
            num_steps=num_steps,
        )

    def advance(self, plan: IterationPlan, result: StepResult) -> list[SlotEvent]:
        """Take in the results of the plan's steps, in order; return news of slots that finished a block or ended (or
        are watched)."""
        events = self._take_in(plan, result)
        for later in result.later:
            events += self._take_in_later(plan, later)
        return events

    def _take_in(self, plan: IterationPlan, result: StepResult) -> list[SlotEvent]:
        slots = self.slots
        slots.cached_len[self._kept] = self._cached_len
        given = slots.given_len[self._kept]
        for slot in self._kept[(given > 0) & (self._whole | (self._cached_len >= given))]:
            assert self._sharing is not None
            self._sharing.computed(int(slot))
        self._computed(np.ones(len(self._kept), np.bool_))
        closed = self._kept[slots.closing[self._kept] & (slots.cached_len[self._kept] >= slots.block_start[self._kept])]
        events = [self._final_event(int(slot)) for slot in closed]
        slots.running[closed] = False
        if len(plan.decoded):
            events += self._absorb(plan.decoded, result)
        return events

    def _paced(self, running: IntArray) -> tuple[IntArray, IntArray]:
        """The sequences that take part, as far as can be said before their rows are known, and the most positions that
        each may compute."""
        slots = self.slots
        in_parts = self._in_parts[slots.policy[running]]
        weight = np.where(slots.guide_slot[running] >= 0, 2, 1)
        length = slots.block_length[running]
        begun = np.where(in_parts, slots.cached_len[running], 0)
        needed = slots.block_end[running] - begun
        pending = slots.block_start[running] - slots.cached_len[running]
        is_long = in_parts & (pending > length)
        chunk_len = self._pacer.chunks(needed * weight, length * weight, is_long, slots.turn[running]) // weight
        takes_part = chunk_len > 0
        return running[takes_part], chunk_len[takes_part]

    def _take_in_later(self, plan: IterationPlan, result: StepResult) -> list[SlotEvent]:
        """A further step with the same rows: nothing has happened to sequences whose block was complete before it."""
        decoded, slots, rows = plan.decoded, self.slots, plan.rows
        over_N = ~slots.running[decoded.slot_N] | (slots.block_start[decoded.slot_N] != decoded.start_N)
        is_over_S = np.zeros(len(slots.running), np.bool_)
        is_over_S[decoded.slot_N] = over_N
        guided_N = decoded.guide_slot_N >= 0
        is_over_S[decoded.guide_slot_N[guided_N]] = over_N[guided_N]
        self.num_idle_positions += int((rows.q_end_R - rows.q_start_R)[is_over_S[rows.slot_R]].sum())
        self._computed(~is_over_S[self._kept])
        kept, kept_result = without_blocks(decoded, result, over_N)
        return self._absorb(kept, kept_result) if len(kept) else []

    def _computed(self, which: BoolArray) -> None:
        """A forward has computed the rows of ``which`` of the planned sequences."""
        slots, kept, whole = self.slots, self._kept[which], self._whole[which]
        slots.refreshed[kept] = True
        slots.stale_steps[kept] = np.where(whole, 0, slots.stale_steps[kept] + 1)
        slots.drift[kept[whole]] = 0.0
        slots.fresh[kept] = self._refresh[kept]
        slots.refreshes[kept] += self._refresh[kept]

    def _num_steps(self, rows: Rows, decode_row: IntArray) -> int:
        """How many steps the host lets pass: several when all running sequences decide, and none needs it between."""
        slots, kept = self.slots, self._kept
        if self._ahead.most == 1 or len(kept) < slots.running.sum():
            return 1
        if len(rows.slot_R) > len(kept) or (decode_row < 0).any():
            return 1
        needs_host = slots.watched[kept] | (slots.transforms[kept] != 0) | self._growth.adaptive(kept)
        needs_host |= slots.given_len[kept] > 0
        needs_host |= self._measures[slots.policy[kept]] | np.array(self._divergent)[slots.decoder[kept]]
        needs_host |= np.array(self._first_only)[slots.policy[kept]] & (slots.step[kept] == 0)
        if needs_host.any():
            return 1
        planned = Planned(kept, rows, self._cached_len, self._whole, self._refresh[kept])
        return self._ahead.count(planned, lambda chosen: slots.progress(chosen, slots.block_length[chosen]))

    def _spans(self, running: IntArray, chunk_len: IntArray) -> tuple[Rows, IntArray, IntArray, IntArray]:
        """Ask every policy present. Returns rows, the slot that owns each, and per running sequence its decode row
        (-1: none) and the length of its final prefix after the forward."""
        decode_row = np.full(len(running), -1)
        cached_len = np.zeros(len(running), np.int64)
        parts, num_rows = [], 0
        for number in np.unique(self.slots.policy[running]):
            chosen = np.flatnonzero(self.slots.policy[running] == number)
            policy = self._policies[self._policy_names[number]]
            spans = policy.spans(self.slots.progress(running[chosen], chunk_len[chosen]))
            decode_row[chosen] = np.where(spans.decode_row >= 0, spans.decode_row + num_rows, -1)
            cached_len[chosen] = spans.cached_len
            self._refresh[running[chosen]] = False if spans.refresh is None else spans.refresh
            num_rows += len(spans.owner_R)
            parts.append((running[chosen][spans.owner_R], spans))
        owner_R = np.concatenate([owner for owner, _ in parts])
        q_start, q_end, kv_start, kv_end = (
            np.concatenate([getattr(spans, name) for _, spans in parts])
            for name in ("q_start_R", "q_end_R", "kv_start_R", "kv_end_R")
        )
        return Rows(owner_R, q_start, q_end, kv_start, kv_end), owner_R, decode_row, cached_len

    def _within_budget(self, running: IntArray, rows: Rows, owner_R: IntArray) -> IntArray:
        """Indices into ``running`` of the sequences that fit the forward, longest-waiting first."""
        slots = self.slots
        cost_S = np.bincount(owner_R, weights=rows.q_end_R - rows.q_start_R, minlength=len(slots.running))
        cost = cost_S[running].astype(np.int64) * np.where(slots.guide_slot[running] >= 0, 2, 1)
        return self._pacer.choose(cost, slots.last_run[running] + slots.handicap[running])

    def _charge(self, rows: Rows, num_steps: int) -> None:
        slots = self.slots
        slots.last_run[self._kept] = self._iteration
        slots.forwards[self._kept] += num_steps
        times_R = np.where(slots.guide_slot[rows.slot_R] >= 0, 2, 1) * num_steps
        np.add.at(slots.positions, rows.slot_R, (rows.q_end_R - rows.q_start_R) * times_R)

    def _with_twins(self, rows: Rows) -> tuple[Rows, IntArray]:
        """Repeat the rows of guided sequences for their twins; also returns the twin of each row (-1: none)."""
        guide_R = self.slots.guide_slot[rows.slot_R]
        guided = np.flatnonzero(guide_R >= 0)
        twin_row_R = np.full(len(rows.slot_R), -1)
        if not len(guided):
            return rows, twin_row_R
        twin_row_R[guided] = len(rows.slot_R) + np.arange(len(guided))
        slot_R = np.concatenate((rows.slot_R, guide_R[guided]))
        others = (getattr(rows, name) for name in Rows.__slots__[1:])
        return Rows(slot_R, *(np.concatenate((column, column[guided])) for column in others)), twin_row_R

    def _decode_spans(self, rows: Rows, decode_row: IntArray, twin_row_R: IntArray) -> DecodeSpans:
        slots = self.slots
        deciding = np.flatnonzero(decode_row >= 0)
        deciding = deciding[np.argsort(slots.decoder[self._kept[deciding]], kind="stable")]
        slot_N, row_N = self._kept[deciding], decode_row[deciding]
        inner_N = slots.block_start[slot_N] - rows.q_start_R[row_N]
        offset_R = rows.offset_R
        twin_N = twin_row_R[row_N]
        guide_token_N = np.where(twin_N >= 0, offset_R[twin_N] + inner_N, -1)
        end_N = slots.block_end[slot_N]
        ahead_end_N = np.minimum(end_N + slots.block_length[slot_N], slots.canvas_len[slot_N])
        first_only_N = np.array(self._first_only)[slots.policy[slot_N]] & (slots.step[slot_N] == 0)
        open_block_M, open_offset_M = slots.open_places(slot_N, first_only_N)
        decoded = DecodeSpans(
            slot_N=slot_N,
            start_N=slots.block_start[slot_N],
            end_N=end_N,
            step_N=slots.step[slot_N],
            total_step_N=slots.denoising_steps[slot_N],
            prompt_len_N=slots.prompt_len[slot_N],
            limit_N=slots.limit[slot_N],
            first_token_N=offset_R[row_N] + inner_N,
            guide_slot_N=slots.guide_slot[slot_N],
            guide_token_N=guide_token_N,
            ahead_end_N=np.where(rows.q_end_R[row_N] >= ahead_end_N, ahead_end_N, end_N),
            force_N=slots.step[slot_N] >= slots.max_steps[slot_N],
            first_only_N=first_only_N,
            drawn_N=slots.drawn[slot_N],
            filtered_N=slots.filtered[slot_N],
            deferred_N=slots.deferred[slot_N],
            transforms_N=slots.transforms[slot_N],
            groups=self._groups(slots.decoder[slot_N]),
            open_block_M=open_block_M,
            open_offset_M=open_offset_M,
        )
        return replace(decoded, probes=self._growth.probes(decoded, rows, row_N, twin_N))

    def _soft_inputs(self, rows: Rows, twin_row_R: IntArray, decoded: DecodeSpans) -> SoftInputs | None:
        soft_N = (decoded.transforms_N & self._input_transforms) != 0
        if not soft_N.any():
            return None
        slot_T, position_T = rows.tokens()
        masked_T = self.slots.tokens[slot_T, position_T] == self.slots.mask_token_id
        return soft_inputs(rows, twin_row_R, masked_T, decoded.slot_N, soft_N, self._logit_shift)

    def _groups(self, decoder_N: IntArray) -> tuple[tuple[str, int, int], ...]:
        numbers, first = np.unique(decoder_N, return_index=True)
        ends = np.append(first, len(decoder_N))[1:]
        return tuple(
            (self._decoders[number], int(start), int(end))
            for number, start, end in zip(numbers, first, ends, strict=True)
        )

    def _absorb(self, decoded: DecodeSpans, result: StepResult) -> list[SlotEvent]:
        slots = self.slots
        if decoded.probes is not None:
            decoded, result = without_blocks(decoded, result, self._growth.size(decoded, result.length))
        slot_N = decoded.slot_N
        slots.decided_start[slot_N] = decoded.start_N
        if result.drift_N is not None:
            slots.drift[slot_N] += result.drift_N
        slots.step[slot_N] += 1
        slots.denoising_steps[slot_N] += 1
        status = slots.absorb(
            slot_N, decoded.start_N, decoded.end_N, result.tokens_NB, result.done_N, result.probability_NB
        )
        complete_N = status.complete_N
        ended_N = (status.stop_N >= 0) | (status.decided_to_N >= slots.limit[slot_N])
        ended_N |= self._growth.filled(slot_N, status.decided_to_N)
        if not self._fused:
            ended_N &= complete_N
        if result.length is not None:
            self._growth.expand(slot_N, result.length, ~complete_N & ~ended_N)
        goes_on_N = complete_N & ~ended_N
        self._next_blocks(slot_N[goes_on_N], status.decided_to_N[goes_on_N])
        self._end(slot_N[ended_N])
        events_N = complete_N | ended_N | slots.watched[slot_N]
        events_N &= ~slots.closing[slot_N]
        return [
            self._event(int(slot_N[n]), status.completion_len_N[n], ended_N[n], int(status.stop_N[n]))
            for n in np.flatnonzero(events_N)
        ]

    def _next_blocks(self, slots_n: IntArray, next_mask_n: IntArray) -> None:
        """Go on with the block that holds the next mask; blocks of given text between are not decided."""
        slots = self.slots
        length_n = slots.block_length[slots_n]
        behind_n = slots.block_end[slots_n]  # before a short last block grows with its canvas
        self._growth.extend(slots_n, next_mask_n)
        slots.block_start[slots_n] = behind_n + (next_mask_n - behind_n) // length_n * length_n
        slots.block_end[slots_n] = np.minimum(slots.block_start[slots_n] + length_n, slots.canvas_len[slots_n])
        slots.step[slots_n] = 0
        slots.refreshed[slots_n] = False

    def _end(self, slots_n: IntArray) -> None:
        """Stop planning for these; unfused exact policies commit their last block first."""
        slots = self.slots
        exact = np.array([self._policies[name].exact for name in self._policy_names])[slots.policy[slots_n]]
        closing = slots_n[exact & (not self._fused)]
        slots.closing[closing] = True
        slots.block_start[closing] = slots.block_end[closing]
        slots.running[slots_n] = slots.closing[slots_n]

    def _event(self, slot: int, completion_len: int, ended: bool, stop: int) -> SlotEvent:
        if not ended:
            return SlotEvent(slot, int(completion_len))
        reason: FinishReason = "stop" if stop >= 0 else "length"
        return SlotEvent(slot, int(completion_len), reason, stop if stop >= 0 else None)

    def _final_event(self, slot: int) -> SlotEvent:
        completion_len, stop = self.slots.final_len(slot)
        return self._event(slot, completion_len, True, stop)
