"""One scrape: the samples of this ingress, its sibling replicas, the router and all engine replicas.

Behind one port a scrape reaches any one ingress. That one asks all the others, so the answer is whole and the same
wherever it comes from; every process tells its own numbers under its own ``replica`` label, so sums count nothing
twice. Scrape exactly one address of an application.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.metrics.exposition import expose
from deployments.metrics.spec import Sample, gauge
from engine.errors import LacunaError

logger = logging.getLogger(__name__)

SCRAPE_TIMEOUT_S = 3.0
"""A component that takes longer is left out; Prometheus itself waits 10 s by default."""

Samples = Sequence[Sample]


class Fleet(Protocol):
    """Processes of one deployment."""

    async def metrics(self) -> Sequence[Samples]:
        """What each of them measures. LacunaError where that cannot be known now."""


class NoPeers:
    """The siblings of an ingress that is alone."""

    async def metrics(self) -> Sequence[Samples]:
        return ()


@dataclass(frozen=True, slots=True)
class Component:
    """What is asked at a scrape; ``model`` is "" where it is no engine."""

    name: str
    model: str
    ask: Callable[[], Awaitable[Sequence[Samples]]]


class MetricsCollector:
    """Asks everybody at once, each for at most ``timeout_s``."""

    def __init__(
        self,
        own: Callable[[], Samples],
        router: Fleet,
        engines: Mapping[str, Fleet],
        peers: Fleet,
        timeout_s: float = SCRAPE_TIMEOUT_S,
    ) -> None:
        self._own = own
        self._peers = peers
        self._timeout_s = timeout_s
        self._components = (
            Component("ingress", "", self._ingresses),
            Component("router", "", router.metrics),
            *(Component("engine", model, engine.metrics) for model, engine in engines.items()),
        )

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type; ``accept`` is the scraper's header."""
        return expose(await self.samples(), accept)

    async def samples(self) -> list[Sample]:
        """All samples of the application, and how the collecting went."""
        started_s = time.monotonic()
        answers = await asyncio.gather(*(self._answers(component) for component in self._components))
        samples = [sample for part in answers for sample in part]
        return [*samples, gauge("scrape_duration_seconds", time.monotonic() - started_s)]

    async def _answers(self, component: Component) -> Iterable[Sample]:
        labels = {"component": component.name, "model": component.model}
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await component.ask()
        except (LacunaError, TimeoutError) as error:
            logger.warning("%s %s does not say what it measures: %s", component.name, component.model, error)
            kept = self._own() if component.name == "ingress" else ()
            return [*kept, gauge("scrape_replicas", min(len(kept), 1), **labels), gauge("scrape_failed", 1, **labels)]
        own_labels = {"model": component.model} if component.model else {}
        samples = [sample.labelled(**own_labels) for answer in answers for sample in answer]
        return [*samples, gauge("scrape_replicas", len(answers), **labels), gauge("scrape_failed", 0, **labels)]

    async def _ingresses(self) -> Sequence[Samples]:
        """All ingress replicas; this one speaks for itself, whether Serve counts it among its siblings or not yet."""
        own = self._own()
        mine = own[0].labels["replica"]
        others = [answer for answer in await self._peers.metrics() if answer[0].labels["replica"] != mine]
        return [own, *others]
