"""An ASGI application on a port of this process, for clients that cannot call it directly."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from tests.ports import free_port

START_TIMEOUT_S = 20.0


@contextlib.contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Serve until the block ends; yields the server's address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=free_port(), log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join()
