"""Cores, memory and GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.doctor.finding import Finding, Subject, failure, ok, warning
from deployments.doctor.machine import Machine, read_machine
from engine.models.inspect import format_bytes

MIN_CORES = 2


def check_processor(subject: Subject, machine: Machine | None = None) -> Iterator[Finding]:
    machine = machine or read_machine()
    bfloat16 = "bfloat16 in hardware" if machine.fast_bfloat16 else "no bfloat16 in hardware: serve in float32"
    if subject.is_local and machine.cores < MIN_CORES:
        yield warning(
            "processor",
            f"{machine.cores} core; {bfloat16}",
            f"give it {MIN_CORES} cores: proxy, router and engine take turns on one",
        )
    else:
        yield ok("processor", f"{machine.cores} cores; {bfloat16}")


def check_gpus(subject: Subject, machine: Machine | None = None) -> Iterator[Finding]:
    """What torch makes of the GPUs here, and whether the models ask for them."""
    machine = machine or read_machine()
    yield from _driver(machine)
    for index, gpu in enumerate(machine.gpus):
        name = f"GPU {index}"
        if not gpu.has_kernels:
            yield failure(name, f"{gpu.name}: torch has no code for it", "install a build of torch for this GPU")
        else:
            memory = f"{format_bytes(gpu.free_bytes)} of {format_bytes(gpu.total_bytes)} free"
            yield ok(name, f"{gpu.name}, {memory}; driver {machine.driver}, torch for CUDA {machine.torch_cuda}")
    if subject.is_local and subject.config is not None:
        wanted = max((model.num_gpus for model in subject.config.models), default=0.0)
        if wanted > len(machine.gpus):
            yield failure(
                "GPUs",
                f"a model asks for num_gpus {wanted:g} per replica, torch sees {len(machine.gpus)}",
                "set num_gpus: 0 to serve on the CPU, or join a cluster with GPUs (--ray-address)",
            )
        elif machine.gpus and not wanted:
            yield warning("GPUs", "no model asks for one: all run on the CPU", "set num_gpus: 1 at the model")


def _driver(machine: Machine) -> Iterator[Finding]:
    if machine.gpus:
        return
    if not machine.driver:
        built = f"torch is built for CUDA {machine.torch_cuda}" if machine.torch_cuda else "torch is built for CPUs"
        yield ok("GPUs", f"none: no NVIDIA driver; {built}")
    elif not machine.torch_cuda:
        yield warning(
            "GPUs",
            f"there is an NVIDIA driver ({machine.driver}), but torch is built for CPUs",
            "install torch for CUDA (make install TORCH_ARGS='--index-url ...')",
        )
    else:
        yield failure(
            "GPUs",
            f"driver {machine.driver}, torch for CUDA {machine.torch_cuda}: {machine.cuda_problem}",
            "update the driver, or install torch for the CUDA version that the driver knows",
        )
