"""Free ports for servers of tests."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nothing listens on now. Below the range from which Ray and clients take theirs at random."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = 20_000 + probe.getsockname()[1] % 10_000
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no free port was found")
