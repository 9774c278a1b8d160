"""``lacuna models size``: the memory of a deployment, before there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.config import resolve_checkpoint
from engine.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from engine.memory import MemoryPlan

TABLE_WIDTH = 140


@dataclass(frozen=True, slots=True)
class Sizing:
    """One combination of settings, and what a rank of it takes."""

    dtype: str
    tp: int
    ep: int
    max_model_len: int
    max_num_seqs: int
    plan: MemoryPlan

    def to_dict(self) -> dict[str, object]:
        plan = self.plan
        derived = {"kv_slot_bytes": plan.kv_slot_bytes, "kv_bytes": plan.kv_bytes, "total_bytes": plan.total_bytes}
        return {**asdict(self), "plan": asdict(plan) | derived}


def size(
    path: Annotated[str, typer.Argument(help="Folder of a checkpoint, or the id of an embedded model.")],
    slots: Annotated[
        str, typer.Option(help="engine.max_num_seqs: requests at the same time; several with commas.")
    ] = "1,16,64",
    max_model_len: Annotated[
        str, typer.Option(help="engine.max_model_len; several with commas.", show_default="the model's, at most 4096")
    ] = "",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16; several with commas.", show_default="the checkpoint's")
    ] = "",
    tp: Annotated[str, typer.Option(help="Ranks that share the dense matrices and K/V heads.")] = "1",
    ep: Annotated[str, typer.Option(help="Ranks that share the experts.")] = "1",
    device: Annotated[str, typer.Option(help="cuda or cpu: it decides the size of K/V pages.")] = "cuda",
    memory_gib: Annotated[
        float, typer.Option("--memory", help="GiB of one device: say what fits.", min=0, show_default="not compared")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Memory per rank for every combination of the settings; reads headers only."""
    from rich.console import Console

    dtypes = [part.strip() for part in dtype.split(",") if part.strip()]
    texts = {"slots": slots or "1", "max-model-len": max_model_len, "tp": tp or "1", "ep": ep or "1"}
    sizings = list(_sizings(path, dtypes, device, **{name: _numbers(name, text) for name, text in texts.items()}))
    if as_json:
        print(json.dumps([sizing.to_dict() for sizing in sizings], indent=2))
    else:
        Console(width=max(Console().width, TABLE_WIDTH)).print(_table(sizings, memory_gib))


def _sizings(path: str, dtypes: list[str], device: str, **numbers: list[int]) -> Iterator[Sizing]:
    import torch

    from engine.config import DTYPES, parse_engine_config, resolve_max_model_len
    from engine.memory import plan_memory
    from engine.models.checkpoint import open_checkpoint

    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device is cpu or cuda, got {device!r}", "device")
    checkpoint = open_checkpoint(resolve_checkpoint(path))
    spec = checkpoint.spec
    stored = next((name for name, dtype in DTYPES.items() if dtype == checkpoint.weights.dtype), "float32")
    lengths: list[int | None] = [*numbers["max-model-len"]] or [None]
    for dtype, tp, ep, length, slots in product(
        dtypes or [stored], numbers["tp"], numbers["ep"], lengths, numbers["slots"]
    ):
        ranks = {"tensor_parallel_size": tp, "expert_parallel_size": ep}
        config = parse_engine_config({"dtype": dtype, "max_model_len": length, "max_num_seqs": slots, **ranks})
        plan = plan_memory(spec, config, DTYPES[dtype], torch.device(device))
        yield Sizing(dtype, tp, ep, resolve_max_model_len(config, spec.max_position_embeddings), slots, plan)


def _table(sizings: Sequence[Sizing], memory_gib: float) -> Table:
    from rich import box
    from rich.table import Table

    from engine.models.inspect import format_bytes

    heads = [
        "dtype",
        "tp x ep",
        "positions",
        "slots",
        "weights",
        "K/V of a slot",
        "of all slots",
        "forward",
        "total per rank",
    ]
    table = Table(*heads, "+ sampling", *(["fits"] if memory_gib else []), box=box.ASCII)
    for one in sizings:
        plan = one.plan
        settings = (one.dtype, f"{one.tp} x {one.ep}", str(one.max_model_len), str(one.max_num_seqs))
        sizes = (plan.weight_bytes, plan.kv_slot_bytes, plan.kv_bytes, plan.forward_bytes, plan.total_bytes)
        fits = [_verdict(plan, memory_gib * 2**30)] if memory_gib else []
        table.add_row(*settings, *map(format_bytes, (*sizes, plan.drawing_bytes)), *fits)
    return table


def _verdict(plan: MemoryPlan, memory_bytes: float) -> str:
    if plan.total_bytes > memory_bytes:
        return "no"
    return "yes" if plan.total_bytes + plan.drawing_bytes <= memory_bytes else "greedy only"


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--{option} takes whole numbers above 0 with commas between, got {text!r}", option)
    return [int(part) for part in parts]
