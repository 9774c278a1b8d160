"""How far the distribution of a position moved since the step before, and the memory that this takes.

Shape legend: N decoded blocks, M positions of them, V logit columns of this rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.columns import Columns, ColumnSpec
from engine.decoding.vocabulary import Vocabulary

_PREFIX = "divergence"


class DivergenceMemory:
    """Owns the columns that hold, for the slots of decoders that want divergences, the log-probabilities of the places
    of one block as of the slot's last forward (of this rank's tokens alone), and where that block starts.

    At first it is of no block. After :meth:`compare` or :meth:`store` for all places of a block, :meth:`settle` makes
    it that block's; until then it counts as that of the block before.
    """

    def __init__(self, columns: Columns, vocabulary: Vocabulary) -> None:
        self._columns = columns
        self._vocabulary = vocabulary
        self._in_use = False

    def admit(self, slot: int, block_length: int) -> None:
        """Make room for a request with such blocks; it remembers nothing yet."""
        before = ColumnSpec(torch.float32, width=self._vocabulary.width, per_position=True)
        specs = {"before": before, "block_start": ColumnSpec(torch.int64, fill=-1)}
        self._columns.declare(_PREFIX, specs, block_length)
        self._columns.write(_PREFIX, slot, {})
        self._in_use = True

    def forget(self, slot: int) -> None:
        """The canvas in ``slot`` has changed its length: what is remembered is of other places."""
        if self._in_use:
            column, spec = self._columns.column(_PREFIX, "block_start")
            column[slot] = spec.fill

    def compare(self, slots_M: Tensor, offset_M: Tensor, block_start_M: Tensor, logits_MV: Tensor) -> Tensor:
        """KL(now || before) in nats, +inf where the memory is of another block; remembers ``logits_MV``."""
        cells = self._columns.cells(_PREFIX, slots_M, offset_M)
        now_MV = self._vocabulary.log_softmax(logits_MV)
        moved_M = self._vocabulary.total(divergence(now_MV, cells["before"])).where(
            cells["block_start"] == block_start_M, torch.inf
        )
        cells.store("before", now_MV)
        return moved_M

    def store(self, slots_M: Tensor, offset_M: Tensor, logits_MV: Tensor) -> None:
        """Remember the distributions of places of a block that is still to be decided."""
        self._columns.cells(_PREFIX, slots_M, offset_M).store("before", self._vocabulary.log_softmax(logits_MV))

    def settle(self, slots_N: Tensor, block_start_N: Tensor) -> None:
        """The memory of these slots is that of the blocks at ``block_start_N``."""
        self._columns.store(_PREFIX, slots_N, {"block_start": block_start_N})


def divergence(log_probabilities_MV: Tensor, before_MV: Tensor) -> Tensor:
    """KL(now || before) of each position in nats, this rank's terms of it; both arguments are log-probabilities."""
    terms_MV = log_probabilities_MV.exp() * (log_probabilities_MV - before_MV)
    return terms_MV.nan_to_num(nan=0.0).sum(dim=1)
