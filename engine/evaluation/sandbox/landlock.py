"""Which files a process may touch (Landlock, Linux 5.13): reading where Python lies, writing in one folder.

Runs inside the sandboxed process. Rights and numbers are those of `landlock(7)`.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
ASK_VERSION = 1
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
MAKE_REGULAR, TRUNCATE = 1 << 8, 1 << 14
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_FILE | MAKE_REGULAR | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | TRUNCATE

FILE_RIGHTS_BY_VERSION = (13, 14, 15, 15, 16)
"""How many rights the kernel knows, from version 1 on; more since then are not about files."""
LIBRARIES = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def confine_files(folder: str) -> bool:
    """Let this process read Python's own files and write plain files in ``folder``, nothing else; False where the
    kernel cannot. Needs `no_new_privs`. What is open stays open."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION) if sys.platform == "linux" else 0
    if version < 1:
        return False
    handled = (1 << FILE_RIGHTS_BY_VERSION[min(version, len(FILE_RIGHTS_BY_VERSION)) - 1]) - 1
    ruleset = libc.syscall(CREATE_RULESET, struct.pack("Q", handled), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    rules = dict.fromkeys((*LIBRARIES, *_python_folders()), READ)
    rules |= dict.fromkeys(DEVICES, DEVICE) | {folder: WRITE}
    for path, rights in rules.items():
        _allow(libc, ruleset, path, rights & handled)
    try:
        return bool(libc.syscall(RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _python_folders() -> set[str]:
    """Where the interpreter looks for modules, and where it lies."""
    return {sys.prefix, sys.base_prefix, sys.base_exec_prefix, *(path for path in sys.path if os.path.isabs(path))}


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Add a rule for what lies at ``path``; a path that is not there needs none."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= ~(READ_DIR | REMOVE_FILE | MAKE_REGULAR)
    rule = struct.pack("=Qi", rights, place)  # struct landlock_path_beneath_attr, packed
    failed = libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    os.close(place)
    if failed:
        raise OSError(ctypes.get_errno(), "landlock_add_rule", path)
