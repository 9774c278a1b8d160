"""Whose handlers write which lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from functools import partial
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest
from ray import cloudpickle

from cluster.rank_worker import GroupSettings, RankWorker
from deployments.app import build_app
from deployments.cli.serve import _teller
from deployments.config import AppConfig
from deployments.logs.config import LogConfig
from deployments.logs.request_log import RequestLog, begin, end
from deployments.logs.setup import install, set_up_command, set_up_rank, set_up_replica
from engine.config import EngineConfig

JSON = LogConfig(log_format="json", level="WARNING")
NAMES = ("", "ray", "ray.serve", "deployments", "engine", "cluster")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Loggers are the process': as they were, once the test has ended."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(list(one.handlers), one.level, one.propagate) for one in loggers]
    formatters = {handler: handler.formatter for handlers, _, _ in before for handler in handlers}
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    for handler, formatter in formatters.items():
        handler.setFormatter(formatter)


def test_a_replica_writes_everything_through_serves_handlers() -> None:
    text = io.StringIO()
    file = logging.StreamHandler(text)
    handler = MemoryHandler(1, target=file)
    serve = logging.getLogger("ray.serve")
    serve.handlers[:], serve.propagate = [handler], False
    install(JSON, {"component": "engine"}, serve.handlers)
    install(JSON, {"component": "engine"}, serve.handlers)

    logging.getLogger("engine.core").warning("ours")
    logging.getLogger("engine.core").info("below the level")
    serve.error("Serve's")
    logging.getLogger("third.party").warning("a library's")
    lines = [json.loads(line) for line in text.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["ours", "Serve's", "a library's"], "each once"
    assert {line["component"] for line in lines} == {"engine"}


def test_lines_that_are_kept_for_a_while_name_their_own_request() -> None:
    text = io.StringIO()
    handler = MemoryHandler(100, target=logging.StreamHandler(text))
    install(JSON, {}, [handler])
    for number in range(3):
        token = begin(RequestLog(f"req-{number}"))
        logging.getLogger("engine").warning("busy")
        end(token)
    assert text.getvalue() == ""
    handler.flush()
    lines = [json.loads(line) for line in text.getvalue().splitlines()]
    assert [line["request_id"] for line in lines] == ["req-0", "req-1", "req-2"]


def test_outside_of_serve_nothing_changes() -> None:
    before = list(logging.getLogger().handlers)
    set_up_replica(JSON, "router")
    assert logging.getLogger().handlers == before
    assert logging.getLogger("deployments").level == logging.NOTSET


def test_the_command_writes_rays_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_command(JSON)
    logging.getLogger("ray.serve").error("Started Serve")
    logging.getLogger("ray").error("a node")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["component"]) for line in lines] == [("ray.serve", "serve"), ("ray", "serve")]


def test_ranks_write_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    on_start = cloudpickle.loads(cloudpickle.dumps(partial(set_up_rank, JSON, "m", "r1")))
    settings = GroupSettings(
        checkpoint=Path(), config=EngineConfig(), num_threads=1, timeout_s=1, start_timeout_s=1, on_start=on_start
    )
    RankWorker.__ray_metadata__.modified_class(1, settings, None)
    logging.getLogger("cluster.rank_worker").error("lost")
    line = json.loads(capsys.readouterr().err)
    assert (line["component"], line["model"], line["replica"], line["rank"]) == ("rank", "m", "r1", "1")


def test_where_logs_are_json_the_command_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    config = AppConfig.parse({"logging": {"log_format": "json"}})
    set_up_command(config.logging)
    _teller(config)("Ready:\n  HTTP")
    out, err = capsys.readouterr()
    assert (out, json.loads(err)["message"]) == ("", "Ready:\n  HTTP")
    _teller(AppConfig())("Ready")
    assert capsys.readouterr().out == "Ready\n"


def test_serve_logs_in_the_same_way() -> None:
    ingress = build_app({"logging": '{"log_format": "json", "level": "WARNING"}'})
    config = ingress._bound_deployment._deployment_config.logging_config
    assert (config["encoding"], config["log_level"], config["enable_access_log"]) == ("JSON", "WARNING", False)
