"""What this machine has, as Linux and torch tell it. A container's limits count, not its host's."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

GPU_MEMORY_SHARE = 0.95
"""Of a GPU's memory; the rest is the driver's and fragments."""

_UNLIMITED = 2**60
"""Version 1 of control groups writes a huge number for "no limit"."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """``has_kernels``: torch was built for this GPU's architecture."""

    name: str
    total_bytes: int
    free_bytes: int
    has_kernels: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """``torch_cuda`` is the CUDA version that torch was built for, ``driver`` NVIDIA's driver; empty: none.
    ``cuda_problem`` says why torch cannot use the GPUs that are there."""

    cores: int
    memory_bytes: int
    available_bytes: int
    fast_bfloat16: bool
    torch_cuda: str = ""
    driver: str = ""
    cuda_problem: str = ""
    gpus: tuple[Gpu, ...] = ()


def read_machine(root: Path = Path("/")) -> Machine:
    import torch

    from engine.config import has_fast_bfloat16

    total, available = read_memory(root)
    driver = read_driver(root)
    return Machine(
        cores=read_cores(root),
        memory_bytes=total,
        available_bytes=available,
        fast_bfloat16=has_fast_bfloat16(),
        torch_cuda=torch.version.cuda or "",
        driver=driver,
        cuda_problem=_cuda_problem() if driver and torch.version.cuda else "",
        gpus=_gpus(),
    )


def read_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = [*_words(root / "sys/fs/cgroup/cpu.max"), "max", "100000"][:2]
    if quota == "max":
        quota = (_words(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us") or ["-1"])[0]
        period = (_words(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us") or ["100000"])[0]
    return max(min(cores, int(quota) // int(period)), 1) if int(quota) > 0 else cores


def read_memory(root: Path = Path("/")) -> tuple[int, int]:
    """Bytes in all and bytes that can be had now; zeros where the system does not tell."""
    lines = _text(root / "proc/meminfo").splitlines()
    fields = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    total, available = fields.get("MemTotal", 0), fields.get("MemAvailable", 0)
    for limit_file, usage_file in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, usage = (_words(root / file)[:1] for file in (limit_file, usage_file))
        if limit and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
            total = min(total, int(limit[0]))
            available = min(available, int(limit[0]) - int(usage[0] if usage else 0))
    return total, max(available, 0)


def read_driver(root: Path = Path("/")) -> str:
    """Version of NVIDIA's kernel driver, empty without one."""
    found = re.search(r"NVRM version:.*?\s(\d+\.[\d.]+)", _text(root / "proc/driver/nvidia/version"))
    return found[1] if found else ""


def free_disk(path: Path) -> tuple[int, int]:
    """Free and total bytes of the file system that holds ``path`` or will hold it."""
    usage = shutil.disk_usage(existing(path))
    return usage.free, usage.total


def existing(path: Path) -> Path:
    """The path, or its nearest parent that is there."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def _cuda_problem() -> str:
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())
    return "" if torch.cuda.device_count() else "no device is visible (CUDA_VISIBLE_DEVICES, the container's GPUs)"


def _gpus() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(torch.cuda.get_device_name(index), total, free, _has_kernels(index)))
    return tuple(found)


def _has_kernels(index: int) -> bool:
    """Code for an architecture runs on later ones of the same generation."""
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    built = [re.match(r"sm_(\d+)(\d)", name) for name in torch.cuda.get_arch_list()]
    return any(one is not None and int(one[1]) == major and int(one[2]) <= minor for one in built)


def _text(path: Path) -> str:
    """Empty where the file is missing or not for us."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()
