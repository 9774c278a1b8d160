"""What the doctor looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from deployments.config import AppConfig
from deployments.launch import ServerOptions


class Status(StrEnum):
    """A failure keeps the service from running; a warning is what will hurt later."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``remedy`` says what to do, empty where nothing is to be done."""

    check: str
    status: Status
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What ``lacuna serve`` would be told; ``problem`` is what is wrong with the settings, ``config`` then None."""

    config: AppConfig | None = field(default_factory=AppConfig)
    problem: str = ""
    options: ServerOptions = field(default_factory=ServerOptions)

    @property
    def is_local(self) -> bool:
        """Whether this machine is to do the work, with a Ray of its own."""
        return self.options.ray_address == "local"


Check = Callable[[Subject], Iterable[Finding]]


def ok(check: str, message: str) -> Finding:
    return Finding(check, Status.OK, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Status.WARNING, message, remedy)


def failure(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Status.FAILURE, message, remedy)
