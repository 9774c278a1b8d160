"""The ranks of a replica as one unit: started together, one executor, lost together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import get_current_placement_group

from cluster.network import own_address, use_interface_of
from cluster.placement import GroupPlacement
from cluster.rank_worker import GroupSettings, RankInfo
from cluster.workers import POLL_S, Workers
from engine.channel import ControlChannel
from engine.config import resolve_device
from engine.errors import ConfigError, EngineDeadError, LacunaError
from engine.lockstep import LeadingExecutor
from engine.model_runner import ModelRunner
from engine.models.loader import LoadProgress
from engine.parallel import Ranks, join, leave, listen
from engine.plan import IterationPlan, StepResult

logger = logging.getLogger(__name__)

T = TypeVar("T")

STOP_S = 5.0


class RankLostError(EngineDeadError, RayActorError):
    """A rank is gone or hangs, and with it the replica.

    Ray takes it for the death of the actor that raises it, so Serve replaces the replica at its first failed health
    check.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        RayActorError.__init__(self, error_msg=message)
        EngineDeadError.__init__(self, message, param)


class WorkerGroup:
    """Owns the actors of ranks 1 and up and this process's place as rank 0. An Executor, and an engine's Followers.

    Whatever goes wrong with one rank ends all of them.
    """

    def __init__(self, settings: GroupSettings, placement: GroupPlacement) -> None:
        """Start the other ranks in the bundles of this process's placement group; they begin to load their weights
        when all have met. EngineDeadError names the rank that does not come up."""
        group = get_current_placement_group()
        if group is None:
            raise ConfigError(
                "the ranks of a sharded model need a placement group; `lacuna serve` makes one", "tensor_parallel_size"
            )
        self._settings = settings
        self._lost = threading.Lock()
        self._failure: RankLostError | None = None
        self._closing = False
        self._listeners: list[Callable[[BaseException], None]] = []
        self._following: dict[Any, int] = {}
        self._workers = Workers(settings, group, placement.bundle, _own_handle())
        try:
            self.ranks, self._channel = self._meet()
        except BaseException:
            self._workers.kill()
            raise

    @property
    def infos(self) -> list[RankInfo]:
        """Where each rank runs, this one first."""
        return [RankInfo.here(0), *(info for _, info in sorted(self._workers.infos.items()))]

    @contextmanager
    def loading(self, on_progress: Callable[[LoadProgress], None]) -> Iterator[Callable[[LoadProgress], None]]:
        """Around the loading of rank 0, which calls what this yields. That raises the error of a rank that has failed
        meanwhile. Errors, rank 0's own too, end all ranks and name the rank, its file and what it lacks."""

        def look(progress: LoadProgress) -> None:
            on_progress(progress)
            self._workers.check(self._loading)

        try:
            yield look
        except BaseException as error:
            self._workers.kill()
            of_another = isinstance(error, EngineDeadError) or isinstance(error.__cause__, RayError)
            if of_another or not isinstance(error, LacunaError):
                raise
            raise type(error)(f"{RankInfo.here(0)}: {error.message}", error.param) from error

    def lead(self, runner: ModelRunner) -> WorkerGroup:
        """Wait until every rank has loaded, and lead them. Called within ``loading``."""
        self._workers.wait(self._loading)
        self._executor = LeadingExecutor(runner, self._channel)
        self._following = self._workers.call("follow")
        threading.Thread(target=self._watch, name="lacuna-ranks", daemon=True).start()
        return self

    def execute(self, plan: IterationPlan) -> StepResult:
        return self._executor.execute(plan)

    def beat(self) -> None:
        self._executor.beat()

    def close(self, failure: BaseException | None = None) -> None:
        """End all ranks: orderly, or at once after a failure, whose cause is looked for."""
        if failure is not None:
            self._lose(failure)
            return
        self._closing = True
        try:
            self._executor.close()
            ray.wait(list(self._following), num_returns=len(self._following), timeout=STOP_S)
        except RuntimeError as error:
            logger.warning("the ranks could not be told to stop and are ended: %s", error)
        self._workers.kill()
        leave()

    def on_failure(self, listener: Callable[[BaseException], None]) -> None:
        """Call ``listener`` once the group is lost, from any thread."""
        self._listeners.append(listener)
        if self._failure is not None:
            listener(self._failure)

    def check(self) -> None:
        """RankLostError when the group is lost."""
        if self._failure is not None:
            raise self._failure

    def _meet(self) -> tuple[Ranks, ControlChannel]:
        settings, config = self._settings, self._settings.config
        torch.set_num_threads(settings.num_threads)
        self._workers.wait_until_started()
        address = own_address()
        logger.info("rank 0 meets its ranks by the interface %s", use_interface_of(address))
        store = listen(config.layout.world_size, settings.start_timeout_s)
        self._loading = self._workers.call("load", address, store.port)

        def meet() -> tuple[Ranks, ControlChannel]:
            ranks = join(config.layout, 0, store, resolve_device(config), settings.timeout_s)
            return ranks, ControlChannel(settings.timeout_s)

        meeting = _in_thread(meet)
        while not meeting.done():
            self._workers.check(self._loading)
            threading.Event().wait(POLL_S)
        return meeting.result()

    def _watch(self) -> None:
        """Ends the group when a worker stops following although nobody has told it to."""
        ray.wait(list(self._following))
        if not self._closing:
            self._lose(None)

    def _lose(self, error: BaseException | None) -> None:
        with self._lost:
            if self._failure is not None or self._closing:
                return
            message = self._workers.complaint(self._following) or f"rank 0 has failed: {error}"
            logger.error("the replica is lost, its ranks are ended: %s", message)
            self._failure = RankLostError(message)
            self._workers.kill()
        for listener in self._listeners:
            listener(self._failure)


def _own_handle() -> Any:
    """The handle of the actor that this process is; None in a driver."""
    context = ray.get_runtime_context()
    return context.current_actor if context.get_actor_id() else None


def _in_thread(function: Callable[[], T]) -> Future[T]:
    """The function's result, from a daemon thread: nobody waits for a meeting that has been given up."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - handed on
            future.set_exception(error)

    threading.Thread(target=run, name="lacuna-meeting", daemon=True).start()
    return future
