"""Whether all ranks of a sharded replica hold the same canvas.

They decide each for itself from numbers that are equal on all. Where these differ by one bit, because of a fault in
hardware or in a transform, the ranks part ways without any error.

Shape legend: G ranks, S slots.
"""

from __future__ import annotations

from engine.canvas import Canvas
from engine.errors import RanksDisagreeError
from engine.parallel import Group


class RankCheck:
    """Compares canvases at each ``every``-th forward (0: never), which waits for the device. Counts forwards."""

    def __init__(self, group: Group, every: int) -> None:
        self._group = group
        self._every = every if group.part.count > 1 else 0
        self._num_forwards = 0

    def after_forward(self, canvas: Canvas) -> None:
        """RanksDisagreeError, on every rank, when slots differ."""
        self._num_forwards += 1
        if self._every and self._num_forwards % self._every == 0:
            self._compare(canvas)

    def _compare(self, canvas: Canvas) -> None:
        digest_GS = self._group.all_gather(canvas.digest()).cpu()
        differing_S = (digest_GS != digest_GS[0]).any(dim=0)
        if not differing_S.any():
            return
        slots = differing_S.nonzero().flatten().tolist()
        found = "; ".join(f"slot {slot}: {_camps(digest_GS[:, slot].tolist())}" for slot in slots)
        raise RanksDisagreeError(
            f"after forward {self._num_forwards} the ranks' canvases differ: {found}; the replica has to be replaced",
            "check_ranks",
        )


def _camps(digests: list[int]) -> str:
    """Which ranks hold the same."""
    ranks_of: dict[int, list[str]] = {}
    for rank, digest in enumerate(digests):
        ranks_of.setdefault(digest, []).append(str(rank))
    return " against ".join(f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)}" for ranks in ranks_of.values())
