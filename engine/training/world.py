"""The processes of one training, and what they agree on.

A launcher (torchrun, Ray Train, ``--workers``) sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without
them there is one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from engine.errors import ConfigError


@dataclass(frozen=True, slots=True)
class World:
    """This process is ``rank`` of ``size``, and ``local_rank`` on its machine. Its methods are collective: every
    process calls them in the same order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> World:
        """What the launcher says. ConfigError for variables that are missing or no numbers."""
        try:
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:
                return cls()
            return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
        except (KeyError, ValueError) as error:
            message = (
                f"WORLD_SIZE is set, but {error}: the launcher must set RANK, WORLD_SIZE and LOCAL_RANK to numbers"
            )
            raise ConfigError(message, "workers") from None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device, *, alone_too: bool = False) -> Iterator[None]:
        """Within the block the processes can talk; one by itself has a group only where it is asked for. A group that
        the launcher has made (Ray Train) is taken as it is."""
        if dist.is_initialized() or (self.size == 1 and not alone_too):
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        transport = "nccl" if device.type == "cuda" else "gloo"
        store = dist.HashStore() if self.size == 1 else None  # type: ignore[attr-defined]
        dist.init_process_group(transport, store=store, rank=self.rank, world_size=self.size)
        try:
            yield
        finally:
            dist.destroy_process_group()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sums over all processes."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, values: Sequence[float]) -> list[float]:
        """Element-wise maxima over all processes."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def wait(self) -> None:
        """Until every process is here."""
        self.sum([0.0])

    def _reduce(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        device = torch.device("cuda", self.local_rank) if dist.get_backend() == "nccl" else torch.device("cpu")
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor, operation)
        result: list[float] = tensor.tolist()
        return result


ALONE = World()
