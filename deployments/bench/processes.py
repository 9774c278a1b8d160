"""CPU time of a process and all that it has started, read from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
OTHER = "ray"
ROLES = (
    ("ray::ServeReplica:lacuna:Ingress", "ingress"),
    ("ray::ServeReplica:lacuna:Router", "router"),
    ("ray::ServeReplica:lacuna:EngineReplica", "replica"),
    ("ray::RankWorker", "ranks"),
    ("ray::ProxyActor", "proxy"),
    ("haproxy", "proxy"),
)
"""Beginnings of titles; all else (raylet, control store, Serve's controller, the starting process) is OTHER."""


def descendants(pid: int) -> set[int]:
    """The process and its children, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = _fields(stat)
        if fields:
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = {pid}, [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def cpu_s(pids: set[int]) -> float:
    """Seconds of user and system time that these processes have used; 0 for those that have ended."""
    times = (_fields(Path(f"/proc/{pid}/stat")) for pid in pids)
    return sum((int(fields[11]) + int(fields[12])) / _TICKS_PER_S for fields in times if fields)


def _fields(stat: Path) -> list[str]:
    """The fields behind the command's name, which may hold anything: state, parent, ..."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command(pid: int) -> str:
    """The process's title; Ray's workers write what they are into it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def role_of(title: str) -> str:
    """What a process of a service does, by its title."""
    return next((role for beginning, role in ROLES if title.startswith(beginning)), OTHER)


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU seconds of a service's processes so far: by pid the role and the time."""

    used: Mapping[int, tuple[str, float]]

    @classmethod
    def of(cls, pid: int) -> CpuReading:
        """Of the process and all that it has started."""
        return cls({one: (role_of(_command(one)), cpu_s({one})) for one in descendants(pid)})

    def until(self, later: CpuReading) -> dict[str, float]:
        """Seconds by role between the two; what has ended meanwhile is missing, what has begun is counted whole."""
        spent: dict[str, float] = {}
        for pid, (role, used_s) in later.used.items():
            spent[role] = spent.get(role, 0.0) + used_s - self.used.get(pid, (role, 0.0))[1]
        return spent
