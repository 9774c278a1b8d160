"""Several ranks in one process: a thread for each, and groups that meet at a barrier.

Shape legend: G ranks of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any, TypeVar

import torch
from torch import Tensor

from engine.parallel import NoGroup, ParallelLayout, Part, Ranks

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a rank waits for another, so that a test of ranks that part ways fails instead of hanging."""


class Meeting:
    """Where the ranks of a group leave what the others take."""

    def __init__(self, num_ranks: int) -> None:
        self._left: list[Any] = [None] * num_ranks
        self._barrier = Barrier(num_ranks, timeout=PATIENCE_S)

    def exchange(self, index: int, item: Any) -> list[Any]:
        """Every rank's item, in rank order. The items must not be changed before :meth:`leave`."""
        self._left[index] = item
        self._barrier.wait()
        return list(self._left)

    def leave(self) -> None:
        """All ranks have read what they wanted."""
        self._barrier.wait()

    def give_up(self) -> None:
        """Whoever waits, now or later, gets BrokenBarrierError."""
        self._barrier.abort()


class ThreadGroup:
    """One rank's end of a group. As with real ones, ``all_reduce`` overwrites its argument and sums in rank order;
    unlike them, ranks whose calls do not match get an AssertionError. ``sizes`` lists how many elements this rank gave
    to each collective."""

    def __init__(self, part: Part, meeting: Meeting) -> None:
        self._part = part
        self._meeting = meeting
        self.sizes: list[int] = []

    @property
    def part(self) -> Part:
        return self._part

    def all_reduce(self, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous()
        everyone = self._exchange("all_reduce", tensor)
        total = everyone[0].clone()
        for other in everyone[1:]:
            total += other
        self._meeting.leave()
        return tensor.copy_(total)

    def all_gather(self, tensor: Tensor) -> Tensor:
        gathered = torch.stack(self._exchange("all_gather", tensor))
        self._meeting.leave()
        return gathered

    def all_to_all(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        assert len(rows) == sum(sent), (sent, rows.shape)
        self.sizes.append(rows.numel())
        everyone = self._meeting.exchange(self._part.index, rows.split(sent))
        mine = [pieces[self._part.index] for pieces in everyone]
        assert [len(piece) for piece in mine] == received, received
        result = torch.cat(mine)
        self._meeting.leave()
        return result

    def _exchange(self, kind: str, tensor: Tensor) -> list[Tensor]:
        self.sizes.append(tensor.numel())
        everyone = self._meeting.exchange(self._part.index, (kind, tensor))
        calls = [(name, other.shape, other.dtype) for name, other in everyone]
        assert all(call == calls[0] for call in calls), f"the ranks' calls differ: {calls}"
        return [other for _, other in everyone]


def on_ranks(layout: ParallelLayout, work: Callable[[Ranks], T]) -> list[T]:
    """What ``work`` returns on each rank of the layout, in rank order. An error on one rank ends all of them and is
    raised here."""
    world = Meeting(layout.world_size)
    tensor = [Meeting(layout.tensor) for _ in range(layout.world_size // layout.tensor)]

    def run(rank: int) -> T:
        try:
            return work(_ranks(layout, rank, world, tensor[rank // layout.tensor]))
        except BaseException:
            for meeting in (world, *tensor):
                meeting.give_up()
            raise

    with ThreadPoolExecutor(layout.world_size) as pool:
        futures = [pool.submit(run, rank) for rank in range(layout.world_size)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


def tensor_ranks(count: int, work: Callable[[Ranks], T]) -> list[T]:
    """:func:`on_ranks` of ``count`` ranks that divide dense layers and vocabulary."""
    return on_ranks(ParallelLayout(tensor=count), work)


def _ranks(layout: ParallelLayout, rank: int, world: Meeting, tensor: Meeting) -> Ranks:
    if layout.world_size == 1:
        return Ranks(layout, NoGroup(), NoGroup())
    whole = ThreadGroup(Part(rank, layout.world_size), world)
    if layout.tensor == 1:
        return Ranks(layout, whole, NoGroup())
    if layout.tensor == layout.world_size:
        return Ranks(layout, whole, whole)
    return Ranks(layout, whole, ThreadGroup(layout.tensor_part(rank), tensor))
