"""``python -m engine.bench throughput``: tokens per second, and where the time goes, for strategies and batch sizes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from engine.attention.ways import ATTENTION_WAYS
from engine.bench.lengths import add_mix, completion_lens, in_words
from engine.bench.throughput.baseline import compare_with, table_of
from engine.bench.throughput.measure import Bench, Measurement, Workload
from engine.bench.throughput.roofline import Clock, Roofline, measure
from engine.bench.throughput.shapes import SHAPES, random_model, shape
from engine.config import DTYPES, EngineConfig, check_quantization, resolve_device, resolve_dtype
from engine.errors import ConfigError, InvalidRequestError, LacunaError
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import load_model
from engine.models.quantization import check_quantizable, quantize_int8
from engine.models.spec import DiffusionLM

GPU_ONLY = ("graphs", "idle")
"""Columns that are left out where they are 0, as on a CPU: replayed forwards, positions of complete blocks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--shape", default="llada-83m", help=f"random weights in this shape: {', '.join(SHAPES)}")
    source.add_argument("--model", type=Path, help="folder of a checkpoint instead of random weights")
    parser.add_argument(
        "--strategy",
        action="append",
        help="JSON of a strategy's options; repeat it to compare (default: the model's own)",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="requests at once")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--generate", type=int, default=128, help="tokens of the longest completion")
    add_mix(parser)
    parser.add_argument("--threads", type=int, default=1, help="threads of one torch operation")
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto")
    parser.add_argument("--quantization", choices=["none", "int8"], default="none", help="type of the weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--attention", choices=["auto", *ATTENTION_WAYS], default="auto", help="attention backend")
    parser.add_argument("--cuda-graphs", choices=["auto", "on", "off"], default="auto", help="record steps (CUDA)")
    parser.add_argument("--steps-per-look", type=int, help="denoising steps between two looks of the host")
    parser.add_argument("--whole", action="store_true", help="time whole forwards only (always so with CUDA graphs)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, in turns; the fastest counts")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="what a second is: cpu counts what this process computes, on a CPU that it shares with others",
    )
    parser.add_argument("--output", type=Path, help="also write the results there, as JSON")
    parser.add_argument("--baseline", metavar="REV", help="run this commit too, in turns, and print ratios")


def run(arguments: argparse.Namespace, argv: Sequence[str], console: Console) -> int:
    """Measure, print, write; the exit code."""
    try:
        if arguments.baseline is not None:
            _compare(arguments, argv, console)
            return 0
        results, limits = measure_all(arguments)
    except LacunaError as error:
        console.print(f"error: {error}", style="bold red")
        return 2
    console.print(_table(results, limits, arguments))
    if arguments.output is not None:
        rows = [{"strategy": name, "batch": batch, **one.to_dict()} for name, batch, one in results]
        document = {"flops_per_s": limits.flops_per_s, "bytes_per_s": limits.bytes_per_s, "results": rows}
        arguments.output.write_text(json.dumps(document, indent=1))
    return 0


def _compare(arguments: argparse.Namespace, argv: Sequence[str], console: Console) -> None:
    revision, rounds = arguments.baseline, arguments.repeat
    with console.status("", refresh_per_second=1) as status:
        ratios = compare_with(revision, argv, rounds, status.update)
    console.print(table_of(ratios, revision, rounds))
    if arguments.output is not None:
        rows = [{"strategy": name, "batch": batch, **found.to_dict()} for (name, batch), found in ratios.items()]
        arguments.output.write_text(json.dumps({"baseline": revision, "rounds": rounds, "ratios": rows}, indent=1))


def measure_all(arguments: argparse.Namespace) -> tuple[list[tuple[str, int, Measurement]], Roofline]:
    """Every strategy with every batch size; and what the machine can do."""
    torch.set_num_threads(arguments.threads)
    config = EngineConfig(
        device=arguments.device,
        dtype=arguments.dtype,
        quantization=arguments.quantization,
        max_num_seqs=max(arguments.batch),
        max_num_batched_tokens=max(arguments.batch) * (arguments.prompt + arguments.generate),
        attention_backend=arguments.attention,
        cuda_graphs=arguments.cuda_graphs,
        steps_per_look=arguments.steps_per_look,
        prefix_sharing=False,  # runs repeat the same prompts
    )
    model = _model(arguments, config)
    weight = next(model.parameters())
    cpu_time = arguments.clock == "cpu"
    if cpu_time and weight.device.type != "cpu":
        raise ConfigError(f"--clock cpu says nothing about a model on {weight.device}; use --clock wall", "clock")
    limits = measure(weight.dtype, Clock(weight.device, cpu=cpu_time))
    max_model_len = arguments.prompt + arguments.generate
    bench = Bench(model, config, max_model_len, limits, whole=arguments.whole, cpu_time=cpu_time)
    cases: list[tuple[str, int]] = []
    workloads: list[Workload] = []
    for text in arguments.strategy or ["{}"]:
        options = _options(text)
        for batch in arguments.batch:
            lengths = completion_lens(batch, arguments.generate, arguments.mixed)
            cases.append((text, batch))
            workloads.append(
                Workload(prompt_lens=[arguments.prompt] * batch, completion_lens=lengths, strategy=options)
            )
    measured = bench.best_of_each(workloads, arguments.repeat)
    return [(name, batch, one) for (name, batch), one in zip(cases, measured, strict=True)], limits


def _model(arguments: argparse.Namespace, config: EngineConfig) -> DiffusionLM:
    device = resolve_device(config)
    check_quantization(config, device)
    if arguments.model is None:
        dtype = resolve_dtype(config, device, torch.bfloat16)
        model = random_model(shape(arguments.shape), dtype, device)
    else:
        checkpoint = open_checkpoint(arguments.model, config)
        dtype = resolve_dtype(config, device, checkpoint.weights.dtype)
        model = load_model(checkpoint.path, checkpoint.spec, dtype, device)
    if config.quantization == "none":
        return model
    check_quantizable(model.spec)
    return quantize_int8(model)


def _options(text: str) -> dict[str, object]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(f"--strategy {text!r} is not JSON: {error.msg}", "strategy") from None
    if not isinstance(options, dict):
        raise InvalidRequestError(f"--strategy {text!r} is not a JSON object", "strategy")
    return options


def _table(results: Sequence[tuple[str, int, Measurement]], limits: Roofline, arguments: argparse.Namespace) -> Table:
    what = arguments.model or arguments.shape
    title = (
        f"{what}, prompt {arguments.prompt}, {in_words(arguments.generate, arguments.mixed)}, "
        f"{arguments.threads} thread(s), {arguments.clock} time; this machine: {limits.flops_per_s / 1e9:.0f} GFLOP/s, "
        f"{limits.bytes_per_s / 1e9:.1f} GB/s"
    )
    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for name, _, _ in results))
    if names != ["{}"]:
        table.caption = "\n".join(f"#{number}: {name}" for number, name in enumerate(names, 1))
        table.caption_justify = "left"
    rows = [{"#": str(names.index(name) + 1), "batch": str(batch), **_cells(one)} for name, batch, one in results]
    shown = [head for head in rows[0] if head not in GPU_ONLY or any(row[head] != "0.0%" for row in rows)]
    for head in shown:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*(row[head] for head in shown))
    return table


def _cells(one: Measurement) -> dict[str, str]:
    """What the table says of a measurement, by column."""
    return {
        "tokens/s": f"{one.tokens_per_s:.1f}",
        "forwards": str(one.forwards),
        "TPF": f"{one.tokens_per_forward:.2f}",
        "pos/token": f"{one.positions_per_token:.1f}",
        "layers": f"{one.body_share:.1%}",
        "head": f"{one.head_share:.1%}",
        "decide": f"{one.decide_share:.1%}",
        "host": f"{one.host_share:.1%}",
        "FLOP use": f"{one.flops_utilisation:.1%}",
        "byte use": f"{one.bytes_utilisation:.1%}",
        "of limit": f"{one.limit_share:.1%}",
        "ms/forward": f"{one.forward_ms:.2f}",
        "least ms": f"{one.floor_ms:.2f}",
        "graphs": f"{one.graph_forwards / one.forwards:.1%}",
        "idle": f"{one.idle_positions / one.positions:.1%}",
        "peak MiB": f"{one.peak_memory_mib:.0f}",
    }
