"""The filter's instructions, followed by hand for the calls that matter on both architectures."""

from __future__ import annotations

import struct

import pytest

from engine.evaluation.sandbox import seccomp

PID = 4711
OTHER_THREAD, NEW_THREAD, NEW_PROCESS = 17, 0x10F00, 0x11


def answer(machine: str, number: int, argument: int = 0, architecture: int | None = None) -> int:
    """What the kernel would be told."""
    program = list(struct.iter_unpack("HBBI", seccomp.filter_program(machine, PID)))
    data = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: architecture or seccomp.AUDIT_ARCH[machine]}
    place, loaded = 0, 0
    while True:
        code, when_true, when_false, value = program[place]
        place += 1
        if code == seccomp.RETURN:
            return int(value)
        if code == seccomp.LOAD:
            loaded = data.get(value, argument)
            continue
        tests = {
            seccomp.JUMP_EQUAL: loaded == value,
            seccomp.JUMP_AT_LEAST: loaded >= value,
            seccomp.JUMP_ANY_BIT: bool(loaded & value),
        }
        place += when_true if tests[code] else when_false


@pytest.mark.parametrize("place", [0, 1])
def test_calls(place: int) -> None:
    machine = seccomp.PLACES[place]
    allowed = {
        "clone": (seccomp.CLONE[place], NEW_THREAD),
        "kill": (seccomp.KILL[place], PID),
        "tgkill": (seccomp.TGKILL[place], PID),
        "prlimit": (seccomp.PRLIMIT[place], 0),
        "write": ((1, 64)[place], 1),
        "exit_group": ((231, 94)[place], 0),
    }
    refused = {
        "clone": (seccomp.CLONE[place], NEW_PROCESS),
        "kill": (seccomp.KILL[place], PID + 1),
        "kill all": (seccomp.KILL[place], 0xFFFFFFFF),
        "tgkill": (seccomp.TGKILL[place], OTHER_THREAD),
        "prlimit": (seccomp.PRLIMIT[place], OTHER_THREAD),
        **{name: (numbers[place], 0) for name, numbers in seccomp.REFUSED.items() if numbers[place] is not None},
    }
    assert {name: answer(machine, *call) for name, call in allowed.items()} == dict.fromkeys(allowed, seccomp.ALLOW)
    eperm = seccomp.REFUSE | seccomp.EPERM
    assert {name: answer(machine, *call) for name, call in refused.items()} == dict.fromkeys(refused, eperm)
    assert answer(machine, seccomp.CLONE3[place]) == seccomp.REFUSE | seccomp.ENOSYS


def test_other_ways_to_make_a_call_are_refused() -> None:
    assert answer("x86_64", seccomp.FOREIGN_NUMBERS | 1) == seccomp.REFUSE | seccomp.EPERM
    assert answer("x86_64", 1, architecture=0x40000003) == seccomp.REFUSE | seccomp.EPERM
