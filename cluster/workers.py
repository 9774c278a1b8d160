"""The actors of ranks 1 and up: starting them, waiting for them, asking whether they live."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.placement import order_ranks
from cluster.rank_worker import GroupSettings, RankInfo, RankState, RankWorker
from engine.errors import EngineDeadError, LacunaError

logger = logging.getLogger(__name__)

POLL_S = 0.2
PING_S = 2.0
"""A rank that does not answer for so long, when something is wrong, hangs."""


class Workers:
    """Owns the actors. A call to all of them is a mapping from its reference to the rank."""

    def __init__(
        self, settings: GroupSettings, group: PlacementGroup, resources: Mapping[str, float], leader: Any
    ) -> None:
        """Start one actor per bundle but the first, each with ``resources``; ``leader`` is rank 0's own handle."""
        self._patience_s = settings.start_timeout_s
        bundles = order_ranks(_nodes(group), settings.config.tensor_parallel_size)
        self._actors = {
            rank: RankWorker.options(  # type: ignore[attr-defined]
                num_cpus=resources.get("CPU", 0),
                num_gpus=resources.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
            ).remote(rank, settings, leader)
            for rank, bundle in enumerate(bundles)
            if rank
        }
        self.infos: dict[int, RankInfo] = {}

    def call(self, method: str, *arguments: object) -> dict[Any, int]:
        """Start a method on every worker."""
        return {getattr(actor, method).remote(*arguments): rank for rank, actor in self._actors.items()}

    def wait_until_started(self) -> None:
        """Until every actor runs. EngineDeadError names those that do not."""
        calls = self.call("info")
        done, late = ray.wait(list(calls), num_returns=len(calls), timeout=self._patience_s)
        for ref in done:
            self.infos[calls[ref]] = self.result(ref, calls[ref])
        if late:
            ranks = ", ".join(str(calls[ref]) for ref in late)
            raise EngineDeadError(
                f"rank {ranks} of {len(calls) + 1} did not start within {self._patience_s:g} s; see Ray's log of the "
                "node, or raise rank_start_timeout_s",
                "rank_start_timeout_s",
            )

    def wait(self, calls: Mapping[Any, int]) -> None:
        """Until every worker has finished the call, telling how far they are. EngineDeadError or the worker's own
        error names the first rank that fails, or that does not even say how far it is."""
        watch = _LoadWatch(self, self._patience_s)
        waiting = dict(calls)
        while waiting:
            self.check(waiting)
            watch.look(waiting.values())
            done, _ = ray.wait(list(waiting), timeout=POLL_S)
            for ref in done:
                self.result(ref, waiting.pop(ref))

    def check(self, calls: Mapping[Any, int]) -> None:
        """Raise the error of a call that has failed already."""
        done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for ref in done:
            self.result(ref, calls[ref])

    def result(self, ref: Any, rank: int) -> Any:
        """What the call gave; its error tells the rank."""
        try:
            return ray.get(ref)
        except RayError as error:
            self._explain(rank, error)

    def ask(self, rank: int) -> Any:
        """A reference to the rank's state."""
        return self._actors[rank].state.remote()

    def complaint(self, calls: Mapping[Any, int]) -> str | None:
        """What is wrong with the workers, whose ``calls`` should still be running: the dead first, then those that do
        not answer, then those that failed. None when all of them are well. Takes up to ``PING_S``."""
        pings = {self.ask(rank): rank for rank in self._actors}
        answered, silent = ray.wait(list(pings), num_returns=len(pings), timeout=PING_S)
        failures = [(self.failure(ref), rank) for ref, rank in [(ref, pings[ref]) for ref in answered]]
        dead = [f"{self.name(rank)} has died: {_first_line(error)}" for error, rank in failures if error is not None]
        hung = [f"{self.name(pings[ref])} does not answer" for ref in silent]
        ended, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        failed = [
            f"{self.name(calls[ref])} has failed: {_first_line(error)}"
            for ref in ended
            if (error := self.failure(ref)) is not None
        ]
        return next(iter([*dead, *hung, *failed]), None)

    def failure(self, ref: Any) -> Exception | None:
        """The error of a finished call."""
        try:
            ray.get(ref)
        except RayTaskError as error:
            return cast("Exception", error.cause)
        except RayError as error:
            return error
        return None

    def name(self, rank: int) -> str:
        return str(self.infos.get(rank, f"rank {rank}"))

    def kill(self) -> None:
        """End all actors, hung ones too."""
        for actor in self._actors.values():
            ray.kill(actor)

    def _explain(self, rank: int, error: RayError) -> NoReturn:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, LacunaError):
            raise type(cause)(f"{self.name(rank)}: {cause.message}", cause.param) from error
        what = "has died" if isinstance(error, RayActorError) else f"has failed with {type(cause).__name__}"
        raise EngineDeadError(f"{self.name(rank)} {what}: {cause}") from error


class _LoadWatch:
    """Asks ranks how far they are, logs every tenth of the way, and finds one that does not answer."""

    def __init__(self, workers: Workers, patience_s: float) -> None:
        self._workers = workers
        self._patience_s = patience_s
        self._asked: dict[int, tuple[Any, float]] = {}
        self._tenths: dict[int, int] = {}

    def look(self, ranks: Sequence[int] | Any) -> None:
        for rank in ranks:
            if rank not in self._asked:
                self._asked[rank] = (self._workers.ask(rank), time.monotonic())
            ref, since_s = self._asked[rank]
            if ray.wait([ref], timeout=0)[0]:
                self._log(rank, self._workers.result(ref, rank))
                del self._asked[rank]
            elif time.monotonic() - since_s > self._patience_s:
                raise EngineDeadError(
                    f"{self._workers.name(rank)} has not answered for {self._patience_s:g} s while it loaded"
                )

    def _log(self, rank: int, state: RankState) -> None:
        tenths = 10 * state.loaded_bytes // max(state.total_bytes, 1)
        if tenths > self._tenths.get(rank, 0):
            self._tenths[rank] = tenths
            logger.info("%s loads: %d %%", self._workers.name(rank), 10 * tenths)


def _nodes(group: PlacementGroup) -> list[str]:
    """The node of each bundle."""
    by_bundle = placement_group_table(group)["bundles_to_node_id"]
    return [by_bundle[bundle] for bundle in range(len(by_bundle))]


def _first_line(error: Exception) -> str:
    """The beginning of an error's text: Ray's go on for a page."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
