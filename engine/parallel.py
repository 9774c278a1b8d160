"""The ranks that share one model, which part of it each holds, and what they exchange.

W ranks hold attention, dense layers and the vocabulary in ``tensor`` parts and the experts in ``expert`` parts; W is
the larger of the two numbers. Every rank sees every token. Collectives give all ranks of a group the same bits, so
ranks that start from equal canvases decide alike.

Shape legend: G ranks of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store, TCPStore

from engine.errors import ConfigError

MAX_GATHERED_BYTES = 2**16
"""Up to this size, ranks that add up by themselves send each other everything."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of ``count`` equal parts."""

    index: int = 0
    count: int = 1

    def span(self, total: int) -> tuple[int, int]:
        """The part's half-open range of ``total`` things; where they do not divide, the first parts get one more."""
        size, extra = divmod(total, self.count)
        start = self.index * size + min(self.index, extra)
        return start, start + size + (self.index < extra)


class Group(Protocol):
    """Ranks that exchange tensors. Every rank of it makes the same calls in the same order with equal shapes, except
    where a method says otherwise."""

    @property
    def part(self) -> Part:
        """Which of the group's ranks this is."""
        ...

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks. The argument may be changed in place."""
        ...

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, in rank order: ``[G, ...]``."""
        ...

    def all_to_all(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Send ``sent[g]`` of the rows, which are in rank order, to rank g; returns what the others sent, in rank
        order, ``received[g]`` rows from rank g. The numbers differ between ranks."""
        ...


class NoGroup:
    """The group of a rank that is alone."""

    @property
    def part(self) -> Part:
        return Part()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]

    def all_to_all(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        assert sent == received == [len(rows)]
        return rows


class AbsentGroup:
    """A group whose other ranks are not there: it says which part a rank has, and exchanges nothing."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def all_reduce(self, tensor: Tensor) -> Tensor:
        raise AssertionError(f"rank {self.part.index} of {self.part.count} is alone")

    all_gather = all_reduce

    def all_to_all(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        return self.all_reduce(rows)


class ProcessGroup:
    """A group of torch.distributed, with its backend: gloo on CPUs, NCCL on CUDA devices.

    With three ranks or more, the order in which gloo adds their numbers depends on where in the tensor they are: a
    token's sum would depend on its neighbours. There the ranks exchange numbers and add them up themselves.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._part = Part(dist.get_rank(group), dist.get_world_size(group))
        self._adds_itself = self._part.count > 2 and dist.get_backend(group) == "gloo"

    @property
    def part(self) -> Part:
        return self._part

    def all_reduce(self, tensor: Tensor) -> Tensor:
        if self._adds_itself:
            return sum_in_rank_order(self, tensor)
        tensor = tensor.contiguous()
        dist.all_reduce(tensor, group=self._group)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        gathered = tensor.new_empty((self._part.count, *tensor.shape))
        dist.all_gather(list(gathered.unbind(0)), tensor.contiguous(), group=self._group)
        return gathered

    def all_to_all(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        result = rows.new_empty((sum(received), *rows.shape[1:]))
        dist.all_to_all_single(result, rows.contiguous(), received, sent, group=self._group)
        return result


def sum_in_rank_order(group: Group, tensor: Tensor) -> Tensor:
    """Sum over the ranks, from the first to the last at every place: all have the same bits, wherever a number is.

    Small tensors go to everybody whole. Of larger ones each rank adds up a share, which moves as many bytes as a
    ring does.
    """
    if tensor.nbytes <= MAX_GATHERED_BYTES:
        return _add_up(group.all_gather(tensor))
    count, share = group.part.count, -(-tensor.numel() // group.part.count)
    padded = tensor.new_zeros(count * share)
    padded[: tensor.numel()] = tensor.flatten()
    own = group.all_to_all(padded, [share] * count, [share] * count).view(count, share)
    return group.all_gather(_add_up(own)).flatten()[: tensor.numel()].view(tensor.shape)


def _add_up(numbers: Tensor) -> Tensor:
    total = numbers[0].clone()
    for rank in range(1, len(numbers)):
        total += numbers[rank]
    return total


ExpertDispatch = Literal["all_reduce", "all_to_all"]
"""How tokens and experts of different ranks meet: every rank computes all tokens as far as its experts go and the
outputs are summed up, or each rank looks after a share of the tokens and their rows travel to the experts' ranks."""


@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """How a model is divided: heads, dense layers and vocabulary over ``tensor`` ranks, experts over ``expert`` ranks.

    The ranks are numbered from 0 to ``world_size - 1``. Adjacent ones form a tensor group. With more expert than tensor
    ranks, the tensor groups hold the same; with fewer, adjacent ranks share each expert, every one a part of its width.
    """

    tensor: int = 1
    expert: int = 1
    dispatch: ExpertDispatch = "all_reduce"

    def __post_init__(self) -> None:
        small, large = sorted((self.tensor, self.expert))
        if small < 1 or large % small:
            raise ConfigError(
                f"tensor_parallel_size {self.tensor} and expert_parallel_size {self.expert}: the larger must be a "
                "multiple of the smaller",
                "expert_parallel_size",
            )
        if self.dispatch == "all_to_all" and self.expert < self.tensor:
            raise ConfigError(
                f"expert_dispatch all_to_all sends a token to the one rank that has its expert, but with "
                f"tensor_parallel_size {self.tensor} and expert_parallel_size {self.expert} ranks share each expert; "
                f"use all_reduce, or expert_parallel_size {self.tensor}",
                "expert_dispatch",
            )

    @property
    def world_size(self) -> int:
        return max(self.tensor, self.expert)

    def tensor_part(self, rank: int) -> Part:
        """The rank's part of heads, dense layers and vocabulary."""
        return Part(rank % self.tensor, self.tensor)

    def expert_part(self, rank: int) -> Part:
        """The rank's part of the experts."""
        return Part(rank // (self.world_size // self.expert), self.expert)

    def expert_width_part(self, rank: int) -> Part:
        """The rank's part of the width of each of its experts."""
        shared = self.world_size // self.expert
        return Part(rank % shared, shared)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This rank's place in a layout, and its groups: ``world`` of all ranks, ``tensor`` of those that together hold one
    copy of attention, dense layers and vocabulary."""

    layout: ParallelLayout
    world: Group
    tensor: Group

    @property
    def rank(self) -> int:
        return self.world.part.index

    @property
    def expert_part(self) -> Part:
        return self.layout.expert_part(self.rank)

    @property
    def expert_width_part(self) -> Part:
        return self.layout.expert_width_part(self.rank)


def rank_without_others(layout: ParallelLayout, rank: int = 0) -> Ranks:
    """A rank's place, to build or load what it holds; it cannot compute. The first rank's parts are the largest."""
    return Ranks(layout, AbsentGroup(Part(rank, layout.world_size)), AbsentGroup(layout.tensor_part(rank)))


ALONE = Ranks(ParallelLayout(), NoGroup(), NoGroup())
"""One rank that holds everything."""


def listen(world_size: int, timeout_s: float, port: int = 0) -> TCPStore:
    """Rank 0's side of the place where the ranks meet: it listens on ``port``, 0 for any free one (``.port`` is it)."""
    timeout = timedelta(seconds=timeout_s)
    return TCPStore("0.0.0.0", port, world_size, is_master=True, timeout=timeout, wait_for_workers=False)


def call(host: str, port: int, world_size: int, timeout_s: float) -> TCPStore:
    """The other ranks' side; RuntimeError when nobody listens there within ``timeout_s``."""
    return TCPStore(host, port, world_size, is_master=False, timeout=timedelta(seconds=timeout_s))


def join(layout: ParallelLayout, rank: int, store: Store, device: torch.device, timeout_s: float) -> Ranks:
    """Meet the other ranks at ``store`` and form the groups: gloo on CPUs, NCCL on CUDA devices.

    A collective that waits longer than ``timeout_s`` for another rank raises RuntimeError. One world per process.
    """
    if layout.world_size == 1:
        return ALONE
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group(backend, timeout=timeout, world_size=layout.world_size, rank=rank, store=store)
    world = dist.group.WORLD
    assert world is not None
    starts = range(0, layout.world_size, layout.tensor)
    if layout.tensor == 1:
        return Ranks(layout, ProcessGroup(world), NoGroup())
    members = [list(range(start, start + layout.tensor)) for start in starts]
    groups = [world if len(members) == 1 else dist.new_group(ranks, timeout) for ranks in members]
    return Ranks(layout, ProcessGroup(world), ProcessGroup(groups[rank // layout.tensor]))


def leave() -> None:
    """Give up this process's connections to the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()
