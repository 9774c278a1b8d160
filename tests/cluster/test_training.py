"""What a failed training on Ray says; that one works is shown in tests/integration."""

from __future__ import annotations

from cluster.training import cause
from engine.errors import ConfigError, EngineDeadError


class WrappedError(Exception):
    """As Ray Train hands over what a worker has raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__("a traceback")
        self._base_exc = error


class FailedError(Exception):
    """As Ray Train raises it."""

    def __init__(self, worker_failures: dict[int, Exception]) -> None:
        super().__init__("Training failed")
        self.worker_failures = worker_failures


def test_our_own_error_is_raised_as_it_is() -> None:
    own = ConfigError("no such folder", "data")
    assert cause(FailedError({0: WrappedError(RuntimeError("peer")), 1: WrappedError(own)})) is own


def test_a_worker_that_died_is_named_before_those_that_missed_it() -> None:
    found = cause(FailedError({0: WrappedError(RuntimeError("peer")), 1: RuntimeError("actor died")}))
    assert isinstance(found, EngineDeadError)
    assert str(found) == "worker 1 died: actor died"
    assert str(cause(FailedError({1: WrappedError(RuntimeError("bug"))}))) == "worker 1 failed: a traceback"
    assert "no room" in str(cause(RuntimeError("no room")))
