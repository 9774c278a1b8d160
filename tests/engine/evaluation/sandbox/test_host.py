"""The sandbox from outside: right programs pass, wrong ones fail, and nothing that a program does reaches further."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.evaluation.sandbox import host
from engine.evaluation.sandbox.host import Limits, Outcome, missing_protections, run_program

LIMITS = Limits(memory_bytes=256 << 20, file_bytes=1 << 20, disk_bytes=2 << 20)
USEFUL = {
    "computes": "assert sum(range(5)) == 10",
    "standard library": "import collections, datetime, decimal, hashlib, heapq, itertools, json, math, random, re\n"
    "assert hashlib.md5(b'x').hexdigest()",
    "threads": "import threading\none = threading.Thread(target=len, args=('',))\none.start()\none.join()",
    "dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    "@dataclass\nclass A:\n    x: int",
    "writes a small file": "open('note', 'w').write('x')\nassert open('note').read() == 'x'",
    "prints": "print('x' * 1_000_000)",
    "closes stdout": "import os, sys\nsys.stdout.close()\nos.close(1)",
    "is no script": "if __name__ == '__main__':\n    raise ValueError",
    "few variables": "import os\nassert set(os.environ) == {'PYTHONHASHSEED', 'LC_ALL'}, os.environ",
}
WRONG = {
    "exit status 0": ("import os\nos._exit(0)", "exit"),
    "sys.exit": ("import sys\nsys.exit(0)", "exit"),
    "closes everything": ("import os\nos.closerange(0, 100)", "exit"),
    "syntax": ("def f(:", "error"),
    "open quote": ("x = '''", "error"),
    "assertion": ("assert 1 == 2, 'no'", "wrong"),
    "memory": ("x = bytearray(1 << 40)", "memory"),
    "recursion": ("def f(n):\n    return f(n + 1)\nf(0)", "error"),
    "strange exception": ("class E(BaseException):\n    def __str__(self):\n        raise self\nraise E", "error"),
    "crash": ("import ctypes\nctypes.string_at(0)", "killed"),
    "abort": ("import os\nos.abort()", "killed"),
    "installed packages": ("import numpy", "error"),
    "large file": ("open('f', 'wb').write(bytes(8 << 20))", "error"),
    "threads without end": (
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "error",
    ),
}
REACHING_OUT = {
    "processes": {
        "fork": "import os\nwhile True:\n    os.fork()",
        "program": "import subprocess\nsubprocess.run(['true'])",
        "kill the host": "import os\nos.kill(os.getppid(), 9)",
        "kill everything": "import os\nos.kill(-1, 9)",
        "limit the host": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
    },
    "network": {"socket": "import socket\nsocket.socket()"},
    "files": {
        "read": "open('/etc/passwd')",
        "link": "import os\nos.symlink('/etc/passwd', 'a')",
        "the host's variables": "import os\nopen(f'/proc/{os.getppid()}/environ')",
        "its own source": f"open({__file__!r})",
        "write": "open('/tmp/lacuna-was-here', 'w')",
        "folder": "import os\nos.mkdir('x')",
    },
}


@pytest.mark.parametrize("name", USEFUL)
def test_what_a_solution_needs_works(name: str) -> None:
    assert run_program(USEFUL[name], "", LIMITS).status == "passed"


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_reach_the_end_of_its_tests_fails(name: str) -> None:
    source, status = WRONG[name]
    assert run_program(source, "pass", LIMITS).status == status


@pytest.mark.parametrize(("protection", "name"), [(part, name) for part in REACHING_OUT for name in REACHING_OUT[part]])
def test_nothing_outside_is_reached(protection: str, name: str) -> None:
    if protection in missing_protections():
        pytest.skip(f"this kernel does not protect {protection}")
    outcome = run_program(REACHING_OUT[protection][name], "", LIMITS)
    assert (outcome.status, outcome.detail.split(":")[0]) == ("error", "PermissionError")


def test_tests_see_the_solution_and_what_is_wrong_is_told() -> None:
    assert run_program("def f(x): return x", "assert f(3) == 3").passed
    assert run_program("def f(x): return x", "assert f(3) == 4, 'not four'").detail == "AssertionError: not four"
    assert run_program("def check(f): pass", "def check(f):\n    assert f is None\ncheck(3)").status == "wrong"
    assert run_program("AssertionError = int", "assert False").status == "wrong"
    assert len(run_program("raise ValueError('x' * 10**7)", "").detail) < 300


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_program("open('a', 'w').write('x')", "", LIMITS).passed
    assert list(tmp_path.iterdir()) == []


def test_too_many_files_end_a_program() -> None:
    source = "import itertools\nfor i in itertools.count():\n    open(str(i), 'wb').write(bytes(1 << 16))"
    assert run_program(source, "", LIMITS).status == "disk"


def test_a_sandbox_that_cannot_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LAUNCH", "raise SystemExit(3)")
    with pytest.raises(ConfigError, match="status 3"):
        run_program("", "")
    monkeypatch.setattr(host.sys, "executable", "/no/such/python")
    with pytest.raises(ConfigError, match="cannot start"):
        run_program("", "")


def test_missing_protections_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run_program", lambda *_: Outcome("passed", "", ("files", "privileges")))
    assert missing_protections() == ("network", "processes")
    monkeypatch.setattr(host, "run_program", lambda *_: Outcome("memory", "MemoryError"))
    with pytest.raises(ConfigError, match="MemoryError"):
        missing_protections()


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "while True:\n    pass",
        "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True:\n    pass",
        "import time\ntime.sleep(1000)",
        "while True:\n    print('x' * 1_000_000)",
    ],
)
def test_time_is_limited(source: str) -> None:
    started = time.monotonic()
    assert run_program(source, "", replace(LIMITS, seconds=1)).status == "time"
    assert time.monotonic() - started < 10
