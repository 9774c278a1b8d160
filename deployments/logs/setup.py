"""Giving a process its logs.

A replica of Serve has a logger ``ray.serve`` with handlers for stderr and for a file of its own, which Serve rotates
and whose folder ``logs_dir`` chooses. All other loggers of such a process have none. So everything goes to Serve's
handlers, in our lines: Serve's own records, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from logging.handlers import MemoryHandler

from deployments.logs.config import LogConfig
from deployments.logs.formats import OWN_LOGGERS, JsonLines, Lines, RequestStamp, TextLines

SERVE_LOGGER = "ray.serve"


def set_up_replica(config: LogConfig, component: str, model: str = "") -> None:
    """The logs of a replica of Serve. Elsewhere, as in a test, it changes nothing: they are the process' own matter."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        replica = serve.get_replica_context().replica_id.unique_id
    except RayServeException:
        return
    handlers = logging.getLogger(SERVE_LOGGER).handlers
    install(config, {"component": component, "model": model, "replica": replica}, handlers)


def set_up_rank(config: LogConfig, model: str, replica: str, rank: int) -> None:
    """The logs of another rank of a sharded replica: everything to stderr, which Ray keeps in a file."""
    _take_over("ray")
    identity = {"component": "rank", "model": model, "replica": replica, "rank": str(rank)}
    install(config, identity, [logging.StreamHandler()])


def set_up_command(config: LogConfig) -> None:
    """The logs of ``lacuna serve`` itself: everything to stderr."""
    from ray import serve  # gives its loggers their handlers when it is imported

    _take_over("ray", serve.__name__)
    install(config, {"component": "serve"}, [logging.StreamHandler()])


def _take_over(*names: str) -> None:
    """These loggers of Ray's lose their handlers; their lines become ours."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def install(config: LogConfig, identity: Mapping[str, str], handlers: list[logging.Handler]) -> None:
    """From now on these handlers write everything in our lines; doing it twice changes nothing."""
    lines = lines_of(config, identity)
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(lines)
        handler.addFilter(RequestStamp())
        if isinstance(handler, MemoryHandler) and handler.target is not None:
            handler.target.setFormatter(lines)
        if handler not in root.handlers:
            root.addHandler(handler)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(config.level)


def lines_of(config: LogConfig, identity: Mapping[str, str]) -> Lines:
    """The chosen format."""
    chosen = JsonLines if config.log_format == "json" else TextLines
    return chosen(identity, shows_texts=config.log_prompts)
