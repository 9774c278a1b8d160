"""Whether the cluster can hold the replicas: said before they are waited for, and while nobody else would say it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from deployments.config import AppConfig, deployment_name
from engine.errors import ConfigError

logger = logging.getLogger(__name__)

LOOK_S = 5.0

Nodes = Sequence[Mapping[str, float]]


def node_resources() -> Nodes:
    """What each live node of the cluster has in all, in use or not."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def shortages(config: AppConfig, nodes: Nodes, at_least: int = 0) -> dict[str, str]:
    """By model, what the nodes lack for its first replicas, ``at_least`` so many, beside those of the models before
    it."""
    left = [dict(node) for node in nodes]
    lacking = {}
    for model in config.models:
        placement = model.placement()
        for _ in range(max(model.first_replicas, at_least)):
            if (shortage := placement.shortage(left)) is not None:
                lacking[model.id] = shortage
                break
            placement.reserve(left)
    return lacking


def check_room(config: AppConfig, nodes: Nodes) -> None:
    """ConfigError when a cluster that cannot grow is too small."""
    if lacking := shortages(config, nodes):
        models = "; ".join(f"{model}: {shortage}" for model, shortage in lacking.items())
        raise ConfigError(
            f"this machine cannot hold the replicas: {models}. Lower num_cpus of the models, the number of ranks or of "
            "models",
            "num_cpus",
        )


class StartWatch:
    """Says, while an application starts, which models wait and for what: at once, and whenever it changes."""

    def __init__(self, config: AppConfig, application: str, announce: Callable[[str], None]) -> None:
        self._config = config
        self._application = application
        self._announce = announce
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lacuna-start-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        said = ""
        while not self._done.wait(LOOK_S):
            waiting = "; ".join(self._waiting())
            if waiting and waiting != said:
                self._announce(f"Waiting for {waiting}")
            said = waiting

    def _waiting(self) -> list[str]:
        from ray import serve

        status = serve.status().applications.get(self._application)
        if status is None:
            return []
        lacking = shortages(self._config, node_resources())
        reasons = []
        for model in self._config.models:
            deployment = status.deployments.get(deployment_name(model.id))
            message = "" if deployment is None else deployment.message.split("\n")[0]
            if reason := lacking.get(model.id) or message:
                reasons.append(f"{model.id}: {reason}")
        return reasons
