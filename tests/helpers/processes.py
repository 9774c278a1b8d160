"""Processes of this machine, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> dict[int, str]:
    """The processes that a process has started, at any distance, and when each began: a number may be given again."""
    parents: dict[int, int] = {}
    started: dict[int, str] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            parents[int(entry.name)], started[int(entry.name)] = int(fields[1]), fields[19]
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: started[one] for one in found - {pid}}


def alive(processes: dict[int, str]) -> list[str]:
    """Command lines of those that still run."""
    return [_command(pid) for pid, started in processes.items() if _started(pid) == started]


def _started(pid: int) -> str:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]  # dead, and its parent has not asked yet


def _command(pid: int) -> str:
    return (PROC / str(pid) / "cmdline").read_text().replace("\0", " ")
