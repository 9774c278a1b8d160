"""Everything that a process can give up by itself before it runs a stranger's program.

Runs inside the sandboxed process, without privileges. What a kernel lacks is left out, and said.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

from engine.evaluation.sandbox.landlock import confine_files
from engine.evaluation.sandbox.seccomp import filter_calls

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SIGKILL = 9
CAPABILITY_VERSION_3 = 0x20080522
MAX_OPEN_FILES = 32


def restrict(folder: str, cpu_seconds: int, memory_bytes: int, file_bytes: int) -> list[str]:
    """Give up what can be given up; returns what is protected: "files", "processes", "network", "privileges".

    Time, memory and the size of a file are always limited.
    """
    protected = []
    if _give_up_privileges():
        protected += ["privileges"]
        if confine_files(folder):
            protected += ["files"]
    _limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    if filter_calls():
        protected += ["network", "processes"]
    elif os.getuid() != 0:
        _limit(resource.RLIMIT_NPROC, 0)  # the superuser's processes are not counted
        protected += ["processes"]
    return sorted(protected)


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    _, highest = resource.getrlimit(what)
    wanted = soft if hard is None else hard
    ceiling = wanted if highest == resource.RLIM_INFINITY else min(wanted, highest)
    resource.setrlimit(what, (min(soft, ceiling), ceiling))


def _give_up_privileges() -> bool:
    """No capability, none to be had by starting another program, and an end when the host's thread ends."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    return all(
        call == 0
        for call in (
            libc.capset(header, bytes(24)),
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0),
        )
    )
