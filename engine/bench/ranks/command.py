"""``python -m engine.bench ranks``: what it costs that several ranks compute one model, beside one rank alone."""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from engine.bench.ranks.comparison import Compared, bytes_table, times_table
from engine.bench.ranks.measure import Workload, measure
from engine.bench.ranks.processes import CPU, Job, Processes
from engine.bench.throughput.shapes import SHAPES, random_model, shape
from engine.errors import ConfigError, LacunaError
from engine.models.division import check_division
from engine.models.loader import save_model
from engine.models.spec import ModelSpec
from engine.parallel import ExpertDispatch, ParallelLayout

DEFAULT_SHAPES = ("llada-83m", "sdar-42m", "llada-moe-67m")
LAYOUTS = ("tp2", "ep2", "tp2ep2", "tp4", "ep4", "tp2ep4", "ep2+all_to_all", "tp2ep4+all_to_all")
EXIT_OK, EXIT_DIFFERENT, EXIT_USAGE = 0, 1, 2
_LAYOUT = re.compile(r"(?=[te])(?:tp(?P<tensor>\d+))?(?:ep(?P<expert>\d+))?(?P<sends>\+all_to_all)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--shape", action="append", help=f"repeat it; {', '.join(SHAPES)}")
    parser.add_argument(
        "--layout", action="append", help="repeat it; tp2, ep4, tp2ep4, each with +all_to_all (default: what suits)"
    )
    parser.add_argument("--batch", type=int, default=2, help="requests at once")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--generate", type=int, default=32, help="tokens of each completion")
    parser.add_argument("--threshold", type=float, default=0.9, help="of the decoder")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the best of each event counts")
    parser.add_argument("--output", type=Path, help="also write the JSON there")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure, print two tables and a line of JSON; the exit code."""
    torch.set_num_threads(1)
    try:
        results = compare(arguments)
    except LacunaError as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return EXIT_USAGE
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    console.print(f"The ranks share the {cores} cores of this machine, whose load is {load:.1f}.")
    console.print(times_table(results, _title(arguments)))
    console.print(bytes_table(results))
    ok = all(one.equal for one in results)
    summary = {"ok": ok, "cores": cores, "load": load, "results": [one.to_dict() for one in results]}
    line = json.dumps(summary)
    if arguments.output is not None:
        arguments.output.write_text(line + "\n", encoding="utf-8")
    console.file.write(line + "\n")
    return EXIT_OK if ok else EXIT_DIFFERENT


def _title(arguments: argparse.Namespace) -> str:
    return (
        f"{arguments.batch} x ({arguments.prompt} + {arguments.generate}) tokens, threshold {arguments.threshold}, "
        f"best of {arguments.repeat}"
    )


def compare(arguments: argparse.Namespace) -> list[Compared]:
    """Every shape in every layout; ConfigError names a layout that a shape cannot have."""
    if arguments.repeat < 1:
        raise ConfigError(f"--repeat {arguments.repeat}: at least one run has to count", "repeat")
    work = {name: layouts_of(shape(name), arguments.layout) for name in arguments.shape or DEFAULT_SHAPES}
    processes = Processes(max(layout.world_size for layouts in work.values() for layout in layouts.values()))
    try:
        return [one for name, layouts in work.items() for one in _compare_shape(processes, name, layouts, arguments)]
    finally:
        processes.close()


def parse_layout(text: str) -> ParallelLayout:
    """Such as ``tp2``, ``ep4`` or ``tp2ep4+all_to_all``."""
    found = _LAYOUT.fullmatch(text)
    if found is None:
        raise ConfigError(f"--layout {text!r}: write tp2, ep4, tp2ep4 or ep4+all_to_all", "layout")
    dispatch: ExpertDispatch = "all_to_all" if found["sends"] else "all_reduce"
    return ParallelLayout(int(found["tensor"] or 1), int(found["expert"] or 1), dispatch)


def layouts_of(spec: ModelSpec, chosen: Sequence[str] | None) -> dict[str, ParallelLayout]:
    """The chosen layouts by name; ConfigError where the shape cannot have one. Without a choice those that it can."""
    if chosen is None:
        layouts = {text: parse_layout(text) for text in LAYOUTS}
        return {text: layout for text, layout in layouts.items() if _suits(spec, layout)}
    layouts = {text: parse_layout(text) for text in chosen}
    for layout in layouts.values():
        check_division(spec, layout)
    return layouts


def _suits(spec: ModelSpec, layout: ParallelLayout) -> bool:
    try:
        check_division(spec, layout)
    except ConfigError:
        return False
    return True


def _compare_shape(
    processes: Processes, name: str, layouts: Mapping[str, ParallelLayout], arguments: argparse.Namespace
) -> list[Compared]:
    spec = shape(name)
    workload = Workload(
        batch=arguments.batch,
        prompt_len=arguments.prompt,
        max_tokens=arguments.generate,
        threshold=arguments.threshold,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_model(random_model(spec, torch.float32, CPU), Path(folder), torch.float32)
        one = measure(processes, _job(Path(folder), spec, ParallelLayout(), workload), workload, arguments.repeat)
        return [
            Compared(
                name,
                text,
                layout.world_size,
                one,
                measure(processes, _job(Path(folder), spec, layout, workload), workload, arguments.repeat),
            )
            for text, layout in layouts.items()
        ]


def _job(folder: Path, spec: ModelSpec, layout: ParallelLayout, workload: Workload) -> Job:
    options = {
        "device": "cpu",
        "dtype": "float32",
        "num_threads": 1,
        "prefix_sharing": False,  # every pass does the same work
        "max_num_seqs": workload.batch,
        "max_model_len": workload.prompt_len + workload.max_tokens,
        "tensor_parallel_size": layout.tensor,
        "expert_parallel_size": layout.expert,
        "expert_dispatch": layout.dispatch,
    }
    return Job(folder, spec, options)
