"""What a replay found, per case and per kind of recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["parity", "default"]
Status = Literal["passed", "failed", "not_supported"]

MODES: tuple[Mode, ...] = ("parity", "default")
"""parity repeats the references' extra forwards; default runs the engine as it serves."""


class NotSupportedError(Exception):
    """The engine has nothing that corresponds to the recording; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case in one mode. ``reason`` says what differs or what is missing; empty when passed."""

    kind: str
    id: str
    mode: Mode
    required: bool
    status: Status
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        return {
            "id": self.id,
            "mode": self.mode,
            "required": self.required,
            "status": self.status,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class KindReport:
    """All results of one kind of recording."""

    kind: str
    results: tuple[CaseResult, ...]

    @property
    def statuses(self) -> dict[str, Status]:
        """The verdict on each required case over its modes: the worst one counts."""
        return self._verdicts(required=True)

    @property
    def optional_statuses(self) -> dict[str, Status]:
        """The same for cases that an engine may reasonably answer differently."""
        return self._verdicts(required=False)

    @property
    def ok(self) -> bool:
        """No required case failed and at least one was replayed: nothing passes by being absent."""
        counts = Counter(self.statuses.values())
        return counts["failed"] == 0 and counts["passed"] > 0

    def to_dict(self) -> dict[str, object]:
        required, optional = Counter(self.statuses.values()), Counter(self.optional_statuses.values())
        return {
            "passed": required["passed"],
            "failed": required["failed"],
            "not_supported": required["not_supported"],
            "optional": {status: optional[status] for status in ("passed", "failed", "not_supported")},
            "ok": self.ok,
            "cases": [result.to_dict() for result in self.results],
        }

    def _verdicts(self, *, required: bool) -> dict[str, Status]:
        worst: dict[str, Status] = {}
        for result in self.results:
            if result.required is required:
                worst[result.id] = _worse(worst.get(result.id, "passed"), result.status)
        return worst


def group_by_kind(results: Iterable[CaseResult]) -> list[KindReport]:
    """One report per kind, in the order of first appearance."""
    kinds: dict[str, list[CaseResult]] = {}
    for result in results:
        kinds.setdefault(result.kind, []).append(result)
    return [KindReport(kind, tuple(members)) for kind, members in kinds.items()]


def to_json(reports: Iterable[KindReport]) -> Mapping[str, object]:
    """One entry per kind, and ``ok``: everything that was asked for was replayed and passed."""
    listed = list(reports)
    return {**{report.kind: report.to_dict() for report in listed}, "ok": bool(listed) and all(r.ok for r in listed)}


def _worse(left: Status, right: Status) -> Status:
    order: tuple[Status, ...] = ("passed", "not_supported", "failed")
    return max(left, right, key=order.index)
