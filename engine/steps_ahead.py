"""How many denoising steps may be taken with the same rows before the host looks.

Shape legend: n planned sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.cache.policy import BoolArray, CachePolicy, IntArray, Progress
from engine.plan import Rows
from engine.slots import SlotTable

_SPANS = ("q_start_R", "q_end_R", "kv_start_R", "kv_end_R")


@dataclass(frozen=True, slots=True)
class Planned:
    """A forward that is being planned: the slots of its sequences, their rows (one each), the length of their final
    prefixes afterwards, and who has the whole canvas computed or counts it as a refresh."""

    slots_n: IntArray
    rows: Rows
    cached_len_n: IntArray
    whole_n: BoolArray
    refresh_n: BoolArray


class StepsAhead:
    """Takes at most ``most`` steps. Asks the policies themselves: as long as they would plan the same rows again for
    blocks that are not complete, the plan holds."""

    def __init__(self, slots: SlotTable, policies: Mapping[str, CachePolicy], most: int) -> None:
        self.most = most
        self._slots = slots
        self._policies = tuple(policies.values())

    def count(self, planned: Planned, progress: Callable[[IntArray], Progress]) -> int:
        """Steps to take, at least 1; ``progress`` tells where slots stand. Rules that do not edit fill a mask at each
        step, so no more than there are masks in the fullest block; and none that would be forced to fill all."""
        slots, slots_n = self._slots, planned.slots_n
        useful = np.where(slots.edits[slots_n], self.most, slots.num_masks(slots_n)).max()
        unforced = (slots.max_steps[slots_n] - slots.step[slots_n]).min()
        most = max(int(min(self.most, useful, unforced)), 1)
        return next((ahead for ahead in range(1, most) if not self._repeats(planned, progress, ahead)), most)

    def _repeats(self, planned: Planned, progress: Callable[[IntArray], Progress], ahead: int) -> bool:
        policy_n = self._slots.policy[planned.slots_n]
        return all(
            self._asks_again(planned, np.flatnonzero(policy_n == number), self._policies[number], progress, ahead)
            for number in np.unique(policy_n)
        )

    def _asks_again(
        self,
        planned: Planned,
        chosen: IntArray,
        policy: CachePolicy,
        progress: Callable[[IntArray], Progress],
        ahead: int,
    ) -> bool:
        """Whether a policy asks for the rows of the chosen sequences once more, so many steps later."""
        slots_n, refresh_n = planned.slots_n[chosen], planned.refresh_n[chosen]
        now = progress(slots_n)
        then = replace(
            now,
            step=now.step + ahead,
            total_steps=now.total_steps + ahead,
            cached_len=planned.cached_len_n[chosen],
            refreshed=np.ones(len(chosen), np.bool_),
            refreshes=now.refreshes + ahead * refresh_n,
            fresh=refresh_n,
            stale_steps=np.where(planned.whole_n[chosen], 0, now.stale_steps + ahead),
        )
        spans = policy.spans(then)
        refreshes_n = np.zeros(len(chosen), np.bool_) if spans.refresh is None else spans.refresh
        if len(spans.owner_R) != len(chosen) or (spans.decode_row < 0).any() or (refreshes_n != refresh_n).any():
            return False
        own_R = np.isin(planned.rows.slot_R, slots_n)
        return all((getattr(spans, name) == getattr(planned.rows, name)[own_R]).all() for name in _SPANS)
