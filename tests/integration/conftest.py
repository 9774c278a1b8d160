"""One service for the whole folder: a Ray of its own in this process, both embedded models, free ports.

The end-to-end tests start the service as a user does; here the tests also look inside, through Serve's handles.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

os.environ["RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "0.5"  # Serve reads it while it is imported
os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "200"  # milliseconds after which the service's processes send their spans

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's modules warn about deprecated pydantic while they are imported
    import ray.serve

from deployments.app import deployment_name
from deployments.config import EMBEDDED_MODELS, AppConfig
from deployments.launch import APP_NAME, ServerOptions, serving
from protos import generation_pb2_grpc
from tests.helpers.collector import Collector, grpc_collector
from tests.ports import free_port

SLOTS = 16
QUEUE_DEPTH = 24
EXPERIMENT: dict[str, Any] = {
    "name": "speed",
    "model": "lacuna-tiny-llada",
    "arms": [
        {"name": "careful", "strategy": {"decoder": "low_confidence"}},
        {"name": "quick", "strategy": {"decoder": "threshold", "threshold": 0.8}},
    ],
    "share": 0.5,
    "override": True,
    "shadow": "quick",
    "metric": "tpf",
    "min_samples": 10,
}
"""Half of the users of one model; the tests of the other files name strategies of their own or use the other model."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, and what its engines say of themselves."""

    base_url: str
    grpc_address: str
    ledger: str

    def engine_stats(self, model: str) -> dict[str, Any]:
        handle = ray.serve.get_deployment_handle(deployment_name(model), APP_NAME)
        stats: dict[str, Any] = handle.stats.remote().result(timeout_s=30)
        return stats

    def router_stats(self) -> dict[str, float]:
        handle = ray.serve.get_deployment_handle("Router", APP_NAME)
        stats: dict[str, float] = handle.record_autoscaling_stats.remote().result(timeout_s=30)
        return stats

    def is_idle(self) -> bool:
        """Every slot is free and nothing holds a place in the router."""
        router = self.router_stats()
        return router["queue_depth"] == router["in_flight"] == router["predicted_work_s"] == 0 and all(
            stats["num_running"] == stats["num_waiting"] == 0 and stats["num_free_slots"] == SLOTS
            for stats in map(self.engine_stats, EMBEDDED_MODELS)
        )


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the service sends its traces: those that a client asks for, all others are not sampled."""
    with grpc_collector() as one:
        yield one


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Service]:
    ledger = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.sqlite3"
    config = AppConfig.parse(
        {
            "models": [{"id": name, "engine": {"max_num_seqs": SLOTS}} for name in EMBEDDED_MODELS],
            "max_queue_depth": QUEUE_DEPTH,
            "keepalive_s": 1.0,
            "experiments": [EXPERIMENT],
            "ledger": ledger,
            "telemetry": {"otlp_endpoint": collector.url, "sampling_ratio": 0},
            "logging": {"log_format": "json"},
            "graceful_shutdown_timeout_s": 2,
            "graceful_shutdown_wait_loop_s": 0.1,
        }
    )
    options = ServerOptions(http_port=free_port(), grpc_port=free_port())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves pipes and sockets of its processes open
        with serving(config, options):
            yield Service(f"http://127.0.0.1:{options.http_port}", f"127.0.0.1:{options.grpc_port}", ledger)


@pytest.fixture(scope="session")
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.base_url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def stub(service: Service) -> Iterator[generation_pb2_grpc.GenerationStub]:
    with grpc.insecure_channel(service.grpc_address) as channel:
        yield generation_pb2_grpc.GenerationStub(channel)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition; fails after some seconds."""

    def wait(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.05)

    return wait
