"""A filter of system calls (seccomp, Linux): no other process, program, signal to others, or socket.

Runs inside the sandboxed process. The filter is a program for the kernel's classic packet filter, `seccomp(2)`.
"""

from __future__ import annotations

import ctypes
import os
import struct

PR_SET_SECCOMP = 22
MODE_FILTER = 2
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
"""Offsets in `struct seccomp_data`; an argument's low half comes first (both architectures are little-endian)."""
CLONE_THREAD = 0x00010000
FOREIGN_NUMBERS = 0x40000000
"""Numbers from here on belong to the x32 calls, a second way to everything; no other architecture has them."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PLACES = ("x86_64", "aarch64")

REFUSED = {  # name: number on each of PLACES; None where it does not exist
    # another process or program
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # the network; socketpair, which reaches nobody, is left
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    # signals to others, and their memory, files, limits and priorities
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    # memory that no limit counts or that outlives the process
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # ways into the kernel that no computation needs
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
CLONE, CLONE3, KILL, TGKILL, PRLIMIT = (56, 220), (435, 435), (62, 129), (234, 131), (302, 261)


def filter_calls() -> bool:
    """Install the filter for this process and its threads for good; False where the kernel has none.

    Needs `no_new_privs`. The process may still signal itself and read and lower its own limits.
    """
    machine = os.uname().machine
    if os.uname().sysname != "Linux" or machine not in AUDIT_ARCH:
        return False
    program = filter_program(machine, os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    return bool(ctypes.CDLL(None).prctl(PR_SET_SECCOMP, MODE_FILTER, header, 0, 0) == 0)


def filter_program(machine: str, pid: int) -> bytes:
    """The filter's instructions of eight bytes each. Every rule ends by itself or leaves the call's number loaded."""
    place = PLACES.index(machine)
    rules = [
        _step(LOAD, ARCHITECTURE),
        _step(JUMP_EQUAL, AUDIT_ARCH[machine], 1, 0),
        _refuse(EPERM),
        _step(LOAD, NUMBER),
        _step(JUMP_AT_LEAST, FOREIGN_NUMBERS, 0, 1),
        _refuse(EPERM),
        _step(JUMP_EQUAL, CLONE3[place], 0, 1),
        _refuse(ENOSYS),  # its flags lie in memory, which a filter can't read; the C library falls back to clone
        _only_with(CLONE[place], JUMP_ANY_BIT, CLONE_THREAD),
        _only_with(KILL[place], JUMP_EQUAL, pid),
        _only_with(TGKILL[place], JUMP_EQUAL, pid),
        _only_with(PRLIMIT[place], JUMP_EQUAL, 0),
    ]
    for numbers in REFUSED.values():
        if (number := numbers[place]) is not None:
            rules += [_step(JUMP_EQUAL, number, 0, 1), _refuse(EPERM)]
    return b"".join([*rules, _step(RETURN, ALLOW)])


def _only_with(number: int, test: int, value: int) -> bytes:
    """Allow the call where its first argument passes the test."""
    return b"".join(
        [
            _step(JUMP_EQUAL, number, 0, 4),
            _step(LOAD, FIRST_ARGUMENT),
            _step(test, value, 1, 0),
            _refuse(EPERM),
            _step(RETURN, ALLOW),
        ]
    )


def _refuse(error: int) -> bytes:
    return _step(RETURN, REFUSE | error)


def _step(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, when_true, when_false, value)
