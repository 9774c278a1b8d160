"""Which replicas find a place, here or on a cluster's nodes."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.config import AppConfig, ModelConfig
from deployments.doctor.finding import Finding, Subject, failure, ok, warning
from deployments.doctor.machine import Machine, read_machine
from deployments.room import Nodes, shortages

FEWER = "lower num_cpus, num_gpus, the number of ranks or of replicas"


def check_local_room(subject: Subject, machine: Machine | None = None) -> Iterator[Finding]:
    """As ``lacuna serve`` asks a Ray of its own, which counts this machine's cores and GPUs."""
    if not subject.is_local or subject.config is None:
        return
    machine = machine or read_machine()
    here = [{"CPU": float(machine.cores), "GPU": float(len(machine.gpus))}]
    yield from check_room(subject.config, here, here, may_grow=False)


def check_room(config: AppConfig, free: Nodes, total: Nodes, *, may_grow: bool) -> Iterator[Finding]:
    """``free`` is what the nodes have left now, ``total`` what they have when nothing runs. Where an autoscaler adds
    nodes, only that knows which ones it could add. A model that starts without replicas needs room for the one that a
    request wakes."""
    now, empty = (shortages(config, nodes, at_least=1) for nodes in (free, total))
    for model in config.models:
        check = f"room for {model.id}"
        if model.id not in now:
            yield ok(check, f"{reserved(model)} find a place")
        elif model.id not in empty:
            yield warning(check, f"now: {now[model.id]}", "replicas wait until other work has ended, see `ray status`")
        elif may_grow:
            remedy = "replicas wait for nodes: the autoscaler needs a node type that holds them"
            yield warning(check, empty[model.id], remedy)
        else:
            yield failure(check, empty[model.id], f"add nodes, or {FEWER}")


def reserved(model: ModelConfig) -> str:
    """What the replicas at the start reserve, in words."""
    placement = model.placement()
    amounts = ", ".join(f"{amount:g} {name}" for name, amount in placement.bundle.items()) or "nothing"
    ranks = f"{placement.world_size} ranks of " if placement.world_size > 1 else ""
    return f"{max(model.first_replicas, 1)} x ({ranks}{amounts})"
