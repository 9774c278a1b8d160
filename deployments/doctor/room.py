"""Which replicas find a place on a cluster's nodes. Arithmetic without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deployments.config import AppConfig
from deployments.doctor.finding import Finding, failure, ok, warning

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Replicas:
    """``count`` replicas of a model, of which each reserves ``bundle`` on one node."""

    model: str
    bundle: Resources
    count: int


def replicas_at_start(config: AppConfig) -> list[Replicas]:
    """A model that starts without replicas must have room for the one that a request wakes."""
    found = []
    for model in config.models:
        resources = {"CPU": model.num_cpus, "GPU": model.num_gpus}
        bundle = {name: amount for name, amount in resources.items() if amount}
        count = model.num_replicas if model.autoscaling is None else model.autoscaling.first_replicas
        found.append(Replicas(model.id, bundle, max(count, 1)))
    return found


def placed(wanted: Sequence[Replicas], nodes: Sequence[Resources]) -> dict[str, int]:
    """How many replicas of each model find a place: the largest first, each on the first node that has room."""
    left = [dict(node) for node in nodes]
    counts = dict.fromkeys((one.model for one in wanted), 0)
    for one in sorted(wanted, key=_size, reverse=True):
        for _ in range(one.count):
            node = next((node for node in left if _fits(one.bundle, node)), None)
            if node is None:
                break
            for name, amount in one.bundle.items():
                node[name] -= amount
            counts[one.model] += 1
    return counts


def check_room(
    wanted: Sequence[Replicas], free: Sequence[Resources], total: Sequence[Resources], *, may_grow: bool
) -> Iterator[Finding]:
    """``free`` is what the nodes have left now, ``total`` what they have when nothing runs. Where an autoscaler adds
    nodes, only that knows which ones it could add."""
    now, empty = placed(wanted, free), placed(wanted, total)
    for one in wanted:
        check = f"room for {one.model}"
        asked = ", ".join(f"{amount:g} {name}" for name, amount in one.bundle.items()) or "nothing reserved"
        message = f"{one.count} x ({asked}): {now[one.model]} fit now, {empty[one.model]} when nothing else runs"
        if now[one.model] == one.count:
            yield ok(check, message)
        elif empty[one.model] == one.count:
            yield warning(check, message, "replicas wait until other work has ended; `ray status` shows what runs")
        elif may_grow:
            yield warning(check, message, "replicas wait for nodes: the autoscaler needs a type that holds one")
        else:
            yield failure(check, message, "add nodes, or lower num_cpus, num_gpus or the number of replicas")


def _size(one: Replicas) -> tuple[float, float]:
    return one.bundle.get("GPU", 0.0), one.bundle.get("CPU", 0.0)


def _fits(bundle: Resources, node: Resources) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in bundle.items())
