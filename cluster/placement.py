"""Where the ranks of a replica go: bundles, their strategy, the order of the ranks, and what a cluster lacks for them.

Plain arithmetic that knows neither Ray nor torch. A replica's placement group has one bundle per rank, all alike, and
bundle 0 is the replica's own process, which is rank 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigError

ROUNDING = 1e-6
"""Shares of a CPU are no whole numbers."""

PlacementStrategy = Literal["STRICT_PACK", "PACK", "SPREAD", "STRICT_SPREAD"]
"""All ranks on one node; on as few as possible; on as many as possible; each on a node of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlacement:
    """What the ranks of one replica reserve: ``num_cpus`` and ``num_gpus`` each."""

    world_size: int
    num_cpus: float
    num_gpus: float = 0
    strategy: PlacementStrategy = "STRICT_PACK"

    def __post_init__(self) -> None:
        if self.world_size == 1:
            return
        if self.num_gpus not in (0, 1):
            raise ConfigError(f"num_gpus {self.num_gpus:g}: a rank of a sharded model computes on one GPU", "num_gpus")
        if not self.num_cpus and not self.num_gpus:
            raise ConfigError("num_cpus 0: the ranks of a sharded model must reserve something", "num_cpus")

    @property
    def bundle(self) -> dict[str, float]:
        """What one rank reserves."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        return {name: amount for name, amount in wanted.items() if amount}

    @property
    def bundles(self) -> list[dict[str, float]]:
        """One per rank; the first is the replica's own."""
        return [self.bundle] * self.world_size

    def shortage(self, nodes: Sequence[Mapping[str, float]]) -> str | None:
        """What nodes with these resources lack to hold the ranks; None when they are enough."""
        wanted, placed = self.world_size, sum(self._counts(nodes))
        if placed >= wanted:
            return None
        ranks = f"{wanted} ranks of {_text(self.bundle)} each do" if wanted > 1 else f"{_text(self.bundle)} does"
        return (
            f"{ranks} not fit {_WHERE[self.strategy]}: there is room for {placed}; missing: "
            f"{_text(self.bundle, wanted - placed)}"
        )

    def reserve(self, nodes: Sequence[dict[str, float]]) -> None:
        """Take what the ranks need away from nodes that have it."""
        for node, count in zip(nodes, self._counts(nodes), strict=True):
            for name, amount in self.bundle.items():
                node[name] = node.get(name, 0) - count * amount

    def _counts(self, nodes: Sequence[Mapping[str, float]]) -> list[int]:
        """How many of the ranks each node gets, as few nodes as can be."""
        fits = [self._fits(node) for node in nodes]
        if self.strategy == "STRICT_PACK":
            best = max(fits, default=0)
            fits = [fit if index == fits.index(best) else 0 for index, fit in enumerate(fits)]
        counts = [0] * len(nodes)
        for index in sorted(range(len(nodes)), key=lambda index: -fits[index]):
            most = 1 if self.strategy == "STRICT_SPREAD" else self.world_size
            counts[index] = min(fits[index], most, self.world_size - sum(counts))
        return counts

    def _fits(self, node: Mapping[str, float]) -> int:
        """Ranks that the node can hold."""
        rooms = [int((node.get(name, 0) + ROUNDING) // amount) for name, amount in self.bundle.items()]
        return min(rooms, default=self.world_size)


_WHERE: Mapping[PlacementStrategy, str] = {
    "STRICT_PACK": "on one node (placement_strategy STRICT_PACK)",
    "STRICT_SPREAD": "on a node each (placement_strategy STRICT_SPREAD)",
    "PACK": "in the cluster",
    "SPREAD": "in the cluster",
}


def _text(bundle: Mapping[str, float], times: int = 1) -> str:
    return " and ".join(f"{amount * times:g} {name}" for name, amount in bundle.items())


def order_ranks(node_of_bundle: Sequence[str], tensor: int) -> tuple[int, ...]:
    """The bundle of each rank, so that as many tensor groups (``tensor`` adjacent ranks) as possible lie on one node.

    Bundle 0 is rank 0. What does not fill a group on its own node is put together at the end; where the first rank's
    node has too few, its group is filled up from such leftovers, or else from a node that then has fewer groups.
    """
    home = node_of_bundle[0]
    on_node: dict[str, list[int]] = {}
    for bundle, node in enumerate(node_of_bundle):
        on_node.setdefault(node, []).append(bundle)
    first = [] if len(on_node[home]) >= tensor else on_node.pop(home)
    whole: list[int] = []
    left: list[int] = []
    for bundles in on_node.values():
        cut = len(bundles) // tensor * tensor
        whole += bundles[:cut]
        left += bundles[cut:]
    lacking = tensor - len(first) if first else 0
    first += left[:lacking]
    lacking -= len(left[:lacking])
    first += whole[len(whole) - lacking :]
    return (*first, *(bundle for bundle in (*whole, *left) if bundle not in first))
