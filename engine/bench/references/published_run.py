"""What a published loop made, and what it fed to the network for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class PublishedRun:
    """``canvas_BL`` is filled as the loop goes; ``positions`` are those of all rows."""

    canvas_BL: Tensor
    forwards: int = 0
    positions: int = 0

    def count(self, tokens_BT: Tensor) -> None:
        """One forward over these tokens."""
        self.forwards += 1
        self.positions += tokens_BT.numel()
