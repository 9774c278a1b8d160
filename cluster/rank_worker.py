"""One rank of a replica as a Ray actor: every rank but the first, which runs inside the replica itself."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import ray
import torch
from opentelemetry.trace import TracerProvider

from cluster.network import own_address, use_interface_of
from engine.build import load_follower
from engine.channel import ControlChannel
from engine.config import EngineConfig, resolve_device
from engine.lockstep import follow
from engine.models.loader import LoadProgress
from engine.parallel import call, join
from engine.telemetry import RankTelemetry

logger = logging.getLogger(__name__)

LEADER_GRACE_S = 5.0
"""So long a rank whose work has failed waits for rank 0 to end it; then rank 0 itself must be hanging."""


class RankTracing(Protocol):
    """Where a rank's spans go."""

    @property
    def provider(self) -> TracerProvider: ...

    def close(self) -> None:
        """Send what is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """What all ranks of a replica are told. ``num_threads`` are those of one torch operation.

    ``timeout_s`` is how long a rank waits for another within a forward, or for a heartbeat; ``start_timeout_s`` how
    long its process may take to start, to find the others and to answer while it loads. ``on_start`` is called with
    its number in the process of every rank but rank 0, before anything else there; ``tracing`` sets up the traces of a
    rank in its process, None: it makes none.
    """

    checkpoint: Path
    config: EngineConfig
    num_threads: int
    timeout_s: float
    start_timeout_s: float
    on_start: Callable[[int], None] | None = None
    tracing: Callable[[int], RankTracing] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankInfo:
    """Where a rank runs."""

    rank: int
    node_id: str
    address: str
    pid: int
    actor_id: str

    @classmethod
    def here(cls, rank: int) -> RankInfo:
        """Of this process, which is an actor's."""
        context = ray.get_runtime_context()
        return cls(
            rank=rank,
            node_id=context.get_node_id(),
            address=own_address(),
            pid=os.getpid(),
            actor_id=context.get_actor_id() or "",
        )

    def __str__(self) -> str:
        return f"rank {self.rank} (pid {self.pid} on {self.address})"


@dataclass(slots=True)
class RankState:
    """What a rank says of itself when it is asked. ``steps`` counts plans and heartbeats."""

    phase: Literal["started", "joining", "loading", "loaded", "following", "stopped"] = "started"
    loaded_bytes: int = 0
    total_bytes: int = 0
    steps: int = 0


@ray.remote(concurrency_groups={"control": 1})  # type: ignore[call-overload]
class RankWorker:
    """Owns a rank's part of the model. ``load``, then ``follow``; the others may be asked meanwhile."""

    def __init__(self, rank: int, settings: GroupSettings, leader: Any) -> None:
        """``leader`` is the handle of the actor that rank 0 runs in, None outside of actors."""
        if settings.on_start is not None:
            settings.on_start(rank)
        self._rank = rank
        self._settings = settings
        self._leader = leader
        self._state = RankState()
        self._tracing = None if settings.tracing is None else settings.tracing(rank)
        self._telemetry = None if self._tracing is None else RankTelemetry(rank, self._tracing.provider)

    @ray.method(concurrency_group="control")
    def info(self) -> RankInfo:
        return RankInfo.here(self._rank)

    @ray.method(concurrency_group="control")
    def state(self) -> RankState:
        return self._state

    def load(self, host: str, port: int) -> None:
        """Meet the other ranks where rank 0 listens and load this rank's part of the weights."""
        settings, config = self._settings, self._settings.config
        torch.set_num_threads(settings.num_threads)
        use_interface_of(own_address())
        self._state.phase = "joining"
        layout = config.layout
        store = call(host, port, layout.world_size, settings.start_timeout_s)
        ranks = join(layout, self._rank, store, resolve_device(config), settings.timeout_s)
        self._channel = ControlChannel(settings.timeout_s)
        self._state.phase = "loading"
        self._runner = load_follower(settings.checkpoint, config, ranks, self._on_progress)
        self._state.phase = "loaded"

    def follow(self) -> None:
        """Execute what rank 0 sends until it says stop; an error is one of this rank, or tells that another is lost."""
        self._state.phase = "following"
        try:
            follow(self._runner, self._channel, self._on_step, self._telemetry)
        except BaseException:
            if self._leader is not None:
                threading.Thread(target=self._end_leader, daemon=True).start()
            raise
        self._state.phase = "stopped"
        if self._tracing is not None:
            self._tracing.close()

    def _end_leader(self) -> None:
        """A leader that lives ends its group as soon as one rank has failed. One that hangs cannot, so it is ended:
        then Serve replaces the replica, and with it this actor."""
        if not threading.Event().wait(LEADER_GRACE_S):
            logger.error("rank %d: rank 0 does not react to a lost group; ending it", self._rank)
            ray.kill(self._leader)

    def _on_progress(self, progress: LoadProgress) -> None:
        self._state.loaded_bytes, self._state.total_bytes = progress.loaded_bytes, progress.total_bytes

    def _on_step(self) -> None:
        self._state.steps += 1
