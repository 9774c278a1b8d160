"""deployments/doctor/machine.py and devices.py: recorded files of systems, invented machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.config import AppConfig
from deployments.doctor.devices import check_gpus, check_processor
from deployments.doctor.finding import Status, Subject
from deployments.doctor.machine import Gpu, Machine, existing, read_cores, read_driver, read_machine, read_memory

GIB = 2**30
MEMINFO = (
    "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"
)
CPU = Machine(cores=8, memory_bytes=16 * GIB, available_bytes=8 * GIB, fast_bfloat16=False)
H100 = Gpu("H100", 80 * GIB, 79 * GIB)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def gpu_machine(**changes: object) -> Machine:
    fields = {name: getattr(CPU, name) for name in Machine.__slots__}
    return Machine(**fields | {"torch_cuda": "13.0", "driver": "580.1"} | changes)  # type: ignore[arg-type]


def test_this_machine_is_read() -> None:
    machine = read_machine()
    assert machine.cores >= 1
    assert 0 < machine.available_bytes <= machine.memory_bytes


def test_memory_without_a_limit(tmp_path: Path) -> None:
    assert read_memory(write(tmp_path, proc__meminfo=MEMINFO)) == (16 * GIB, 8 * GIB)
    assert read_memory(tmp_path / "elsewhere") == (0, 0)


@pytest.mark.parametrize(
    ("limit", "usage"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, usage: str) -> None:
    write(tmp_path, proc__meminfo=MEMINFO)
    group = "sys/fs/cgroup/"
    write(tmp_path, **{group + limit: f"{4 * GIB}\n", group + usage: f"{GIB}\n"})
    assert read_memory(tmp_path) == (4 * GIB, 3 * GIB)
    write(tmp_path, **{group + limit: "max\n"})
    assert read_memory(tmp_path) == (16 * GIB, 8 * GIB)


def test_a_containers_share_of_the_cores(tmp_path: Path) -> None:
    everything = read_cores(tmp_path)
    write(tmp_path, **{"sys/fs/cgroup/cpu.max": "100000 100000\n"})
    assert read_cores(tmp_path) == 1
    write(tmp_path, **{"sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert read_cores(tmp_path) == everything
    write(tmp_path, **{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"})
    assert read_cores(tmp_path) == 1


def test_the_driver_is_read(tmp_path: Path) -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
    assert read_driver(write(tmp_path, proc__driver__nvidia__version=text)) == "535.104.05"
    assert read_driver(tmp_path / "elsewhere") == ""


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path


def test_one_core_is_few() -> None:
    (found,) = check_processor(Subject(), gpu_machine(cores=1))
    assert found.status is Status.WARNING
    (found,) = check_processor(Subject(), gpu_machine(fast_bfloat16=True))
    assert (found.status, "bfloat16 in hardware" in found.message) == (Status.OK, True)


@pytest.mark.parametrize(
    ("machine", "status", "words"),
    [
        (CPU, Status.OK, "no NVIDIA driver"),
        (gpu_machine(torch_cuda=""), Status.WARNING, "built for CPUs"),
        (gpu_machine(cuda_problem="the driver is too old"), Status.FAILURE, "the driver is too old"),
        (gpu_machine(gpus=(Gpu("P100", GIB, GIB, has_kernels=False),)), Status.FAILURE, "no code for it"),
    ],
)
def test_driver_and_torch(machine: Machine, status: Status, words: str) -> None:
    (found,) = check_gpus(Subject(config=None), machine)
    assert found.status is status
    assert words in found.message
    assert found.remedy or status is Status.OK


def test_models_and_gpus_have_to_agree() -> None:
    asking = Subject(config=AppConfig.parse({"models": [{"id": "lacuna-tiny-sdar", "num_gpus": 1}]}))
    assert [found.status for found in check_gpus(asking, CPU)] == [Status.OK, Status.FAILURE]
    assert [found.status for found in check_gpus(asking, gpu_machine(gpus=(H100,)))] == [Status.OK]
    idle = list(check_gpus(Subject(), gpu_machine(gpus=(H100,))))
    assert idle[0].message == "H100, 79.00 GiB of 80.00 GiB free; driver 580.1, torch for CUDA 13.0"
    assert idle[1].status is Status.WARNING
