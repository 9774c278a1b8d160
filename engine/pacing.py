"""How much of a forward long prompts get beside requests that decode, so that steps of these stay short.

Decoding requests come first. What block-causal models can do in parts (the blocks of a prompt) gets a share of every
forward: half as many positions as decode, or ``long_prefill_budget`` if that is more. A whole-canvas pass of a
bidirectional model cannot be cut, as each of its positions attends to all others: such a pass saves that share up
until it has as much as it costs, or ``MAX_PASS_WAIT`` forwards have gone by without one, so that fewer than one step in
twenty of those beside it is long. Nothing is held back where nothing else runs.

Shape legend: n running sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.cache.policy import BoolArray, IntArray

LONG_PASS_BUDGETS = 16
"""A pass of more than so many times ``long_prefill_budget`` positions is long."""

MAX_PASS_WAIT = 24

PRIORITY_FORWARDS = 8
"""A sequence goes before one that has waited so many forwards longer but has a greater priority number by one."""

MAX_PRIORITY = 16
"""Differences beyond this count no more in the running batch: they would let somebody starve."""


@dataclass(frozen=True, slots=True)
class ForwardBudget:
    """Most positions of a forward, and what of them long prompts get at least while others decode."""

    tokens: int
    long_prefill: int

    def share(self, decoding: int) -> int:
        """Positions for long prompts beside so many that decode."""
        return max(decoding // 2, self.long_prefill) if decoding else self.tokens

    @property
    def long_pass(self) -> int:
        return LONG_PASS_BUDGETS * self.long_prefill


class Pacer:
    """Owns what long passes have saved up (``_credit``) and since when the next one waits."""

    def __init__(self, budget: ForwardBudget) -> None:
        self._budget = budget
        self._credit = 0
        self._forwards_since = 0

    def chunks(self, needed_n: IntArray, least_n: IntArray, in_parts_n: BoolArray, turn_n: IntArray) -> IntArray:
        """Positions that each sequence may compute; 0: it sits this forward out.

        ``needed_n`` is what it could use, ``least_n`` the smallest part, ``in_parts_n`` whether it is a long prompt;
        these take their turns by ``turn_n``, each as much as is left.
        """
        allowed_n = np.full(len(needed_n), self._budget.tokens)
        parts = np.flatnonzero(in_parts_n)
        if not len(parts):
            return allowed_n
        parts = parts[np.argsort(turn_n[parts], kind="stable")]
        decoding = int(needed_n[~in_parts_n].sum())
        room = max(min(self._budget.share(decoding), self._budget.tokens - decoding), int(least_n[parts[0]]))
        before = np.cumsum(needed_n[parts]) - needed_n[parts]
        given = np.clip(room - before, 0, needed_n[parts])
        allowed_n[parts] = np.where(given >= least_n[parts], given, 0)
        return allowed_n

    def choose(self, cost_n: IntArray, turn_n: IntArray) -> IntArray:
        """Indices of the sequences that take part in the forward, ascending: those that fit the token budget, smallest
        ``turn_n`` first, at least one; of long passes only what their share allows."""
        order = self._unhindered(cost_n, np.argsort(turn_n, kind="stable"))
        fits = np.cumsum(cost_n[order]) <= self._budget.tokens
        fits[0] = True
        chosen: IntArray = np.sort(order[fits])
        return chosen

    def _unhindered(self, cost_n: IntArray, order: IntArray) -> IntArray:
        """``order`` without the long passes that have to wait."""
        is_long = cost_n[order] > self._budget.long_pass
        if not is_long.any() or is_long.all():
            self._credit = self._forwards_since = 0
            return order
        self._credit += self._budget.share(int(cost_n[order[~is_long]].sum()))
        self._forwards_since += 1
        cost = cost_n[order[is_long]]
        runs = np.cumsum(cost) <= self._credit
        runs[0] |= self._forwards_since >= MAX_PASS_WAIT
        if runs.any():
            self._credit = max(self._credit - int(cost[runs].sum()), 0)
            self._forwards_since = 0
        stays = ~is_long
        stays[is_long] = runs
        return order[stays]


def handicap(priority: int) -> int:
    """Forwards that a running sequence goes behind one of priority 0 that has waited as long."""
    return PRIORITY_FORWARDS * min(max(priority, -MAX_PRIORITY), MAX_PRIORITY)
