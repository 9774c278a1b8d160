"""The live tokens of all running requests.

Shape legend: S slots, L positions of a slot, T tokens of a forward, N decoded rows, B width of the widest span.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Canvas:
    """Owns the token grid: one row per slot, the mask id where nothing is decided. Equal on all ranks. ``given`` marks
    what was there at admission: the prompt and other fixed text.

    :meth:`apply` writes decisions and :meth:`splice` changes lengths; nothing else writes to a running request. One
    spare column behind the last position takes the writes that a decision leaves out, so that applying needs no index
    compaction and never waits for the device.
    """

    def __init__(self, num_slots: int, max_len: int, mask_token_id: int, device: torch.device) -> None:
        self._stride = max_len + 1
        self._mask_token_id = mask_token_id
        self.tokens = torch.full((num_slots, self._stride), mask_token_id, dtype=torch.int64, device=device)
        self.given = torch.zeros((num_slots, self._stride), dtype=torch.bool, device=device)

    def admit(self, slot: int, tokens: Tensor) -> None:
        """Lay out a whole canvas ``[canvas_len]`` in ``slot``; what stood there before is gone."""
        self.tokens[slot] = self._mask_token_id
        self.tokens[slot, : tokens.shape[0]] = tokens.to(self.tokens.device)
        self.given[slot] = self.tokens[slot] != self._mask_token_id

    def fill(self, slot: int, token_id: int) -> None:
        """Put one given token everywhere: a slot in which nothing is ever decided."""
        self.tokens[slot], self.given[slot] = token_id, True

    def splice(self, slot: int, at: int, removed: int, tokens: Tensor) -> None:
        """Put ``tokens`` in the place of ``removed`` positions from ``at`` on; what stands behind moves, and masks come
        in at the end. Masks among them are free, other tokens count as given."""
        tokens = tokens.to(self.tokens.device)
        for grid, piece, fill in (
            (self.tokens, tokens, self._mask_token_id),
            (self.given, tokens != self._mask_token_id, False),
        ):
            row = torch.cat((grid[slot, :at], piece, grid[slot, at + removed :]))[: self._stride]
            grid[slot] = fill
            grid[slot, : len(row)] = row

    def gather(self, slots: Tensor, positions: Tensor) -> Tensor:
        """Tokens at (slot, position); the index tensors broadcast. Positions up to the spare column are legal."""
        return self.tokens[slots, positions]

    def rows(self, slots_N: Tensor) -> Tensor:
        """Whole canvases ``[N, L]``, without the spare column."""
        return self.tokens[slots_N, :-1]

    def digest(self) -> Tensor:
        """A number for each slot ``[S]`` that changes with its tokens and their places: a sum modulo 2^64 with fixed
        pseudo-random odd weights."""
        weight_L = torch.arange(1, self._stride, device=self.tokens.device) * -0x61C8864680B583EB
        weight_L = (weight_L ^ (weight_L >> 29)) * 0x3F58476D1CE4E5B9 | 1
        return ((self.tokens[:, :-1] + 1) * weight_L).sum(dim=1)

    def apply(self, slots_N: Tensor, positions_NB: Tensor, transfer_NB: Tensor, tokens_NB: Tensor) -> None:
        """Write ``tokens_NB`` where ``transfer_NB``. (slot, position) pairs must be distinct where transferred."""
        base_N1 = slots_N[:, None] * self._stride
        target_NB = base_N1 + torch.where(transfer_NB, positions_NB, self._stride - 1)
        self.tokens.view(-1).scatter_(0, target_NB.reshape(-1), tokens_NB.reshape(-1))
