"""The traces of the engine's sequences, told from what its loop does anyway.

Costs two empty checks per step while no sequence is traced, and otherwise something per block of a traced sequence:
never per step and sequence.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.outputs import FinishReason
from engine.plan import IterationPlan
from engine.sequence import Sequence
from engine.slots import SlotTable
from engine.telemetry import Attributes, EngineTelemetry, Work


class SequenceSpans:
    """Owns which traced sequences wait for the first forward of a block (``_due``), and which have it right now."""

    def __init__(self, telemetry: EngineTelemetry, slots: SlotTable) -> None:
        self._telemetry = telemetry
        self._slots = slots
        self._due: list[Sequence] = []
        self._begun: list[Sequence] = []

    def open(self, sequence: Sequence) -> None:
        """A sequence asks for a slot."""
        request = sequence.request
        sequence.trace = self._telemetry.open(request.traceparent, request.tracestate, sequence.arrived_ns)
        if sequence.trace is not None:
            sequence.trace.describe(_attributes(sequence))

    def admitted(self, sequence: Sequence) -> None:
        """It has its slot."""
        if sequence.trace is not None:
            sequence.trace.admitted()
            self._due.append(sequence)

    def before(self, plan: IterationPlan) -> IterationPlan:
        """The plan is about to be executed. The first traced block that begins with it lends the plan its context."""
        if not self._due:
            return plan
        self._begun = [one for one in self._due if one.slot in plan.decoded.slot_N]
        self._due = [one for one in self._due if one not in self._begun]
        for sequence in self._begun:
            self._begin_block(sequence, plan)
        if not self._begun or (first := self._begun[0].trace) is None:
            return plan
        num_tokens = int((plan.rows.q_end_R - plan.rows.q_start_R).sum())
        context = first.begin_forward({"lacuna.rows": len(plan.rows.slot_R), "lacuna.positions_computed": num_tokens})
        return replace(plan, traceparent=context)

    def after(self) -> None:
        """The plan has been executed, and its result has not been taken in yet."""
        if not self._begun:
            return
        for sequence in self._begun:
            if sequence.trace is not None:
                sequence.trace.end_forward()
                sequence.trace.end_prefill(self._work(sequence))
        self._begun = []

    def update(self, sequence: Sequence, batch_size: int) -> None:
        """There is news of a sequence: its block may be complete, then it waits for its next."""
        trace = sequence.trace
        if trace is None or trace.block is None or trace.block[0] == self._slots.block_start[sequence.slot]:
            return
        trace.end_block(self._work(sequence), batch_size)
        self._due.append(sequence)

    def suspended(self, sequence: Sequence, batch_size: int) -> None:
        """It loses its slot, which is still its own, and waits again."""
        if (trace := sequence.trace) is None:
            return
        self._due = [one for one in self._due if one is not sequence]
        trace.end_block(self._work(sequence), batch_size)
        trace.suspended()

    def close(self, sequence: Sequence, reason: FinishReason, batch_size: int) -> None:
        """It leaves the engine; its slot is still its own."""
        if (trace := sequence.trace) is None:
            return
        if sequence in self._due:
            self._due.remove(sequence)
        work = self._work(sequence)
        trace.end_block(work, batch_size)
        trace.finish(reason, work)

    def _begin_block(self, sequence: Sequence, plan: IterationPlan) -> None:
        if sequence.trace is None:
            return
        slots, slot, rows = self._slots, sequence.slot, plan.rows
        mine_R = np.isin(rows.slot_R, (slot, sequence.guide_slot))
        this = Work(forwards=1, positions=int((rows.q_end_R - rows.q_start_R)[mine_R].sum()))
        block = int(slots.block_start[slot]), int(slots.block_end[slot])
        sequence.trace.begin_block(block, self._work(sequence) - this)

    def _work(self, sequence: Sequence) -> Work:
        slots, slot = self._slots, sequence.slot
        if slot < 0:
            return Work()
        return Work(
            forwards=int(slots.forwards[slot]),
            denoising_steps=int(slots.denoising_steps[slot]),
            positions=int(slots.positions[slot]),
            tokens=sequence.num_emitted - len(sequence.request.shown),
        )


def _attributes(sequence: Sequence) -> Attributes:
    request, strategy = sequence.request, sequence.strategy
    return {
        "lacuna.request_id": request.request_id,
        "lacuna.prompt_tokens": len(sequence.prompt_ids),
        "lacuna.max_tokens": len(sequence.completion_ids),
        "lacuna.given_tokens": len(request.generated),
        "lacuna.strategy.decoder": strategy.decoder,
        "lacuna.strategy.cache": strategy.cache,
        "lacuna.strategy.preset": strategy.preset,
        "lacuna.block_length": strategy.block_length,
    }
