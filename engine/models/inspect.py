"""What a checkpoint is and whether it can be served, from its JSON files and the headers of its weights alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from engine.cache import CACHE_POLICIES
from engine.config import EngineConfig
from engine.errors import CheckpointError, ConfigError
from engine.models.checkpoint import CONFIG_FILE, Checkpoint, checkpoint_folder, open_checkpoint
from engine.models.json_fields import JsonFields
from engine.models.loader import build_model
from engine.models.matching import check_weights
from engine.models.registry import read_architecture
from engine.models.spec import ModelSpec
from engine.models.weight_files import WeightFiles, read_weight_files
from engine.strategy import DEFAULTS
from engine.tokenizer import TOKENIZER_FILES

KV_BYTES = 4
"""Bytes of a K/V element in float32, what a CPU serves in."""


class Fact(NamedTuple):
    """A resolved value and where it was found."""

    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """``problem`` says why the checkpoint cannot be served, None when it can; what could not be found out is empty.

    Sizes are bytes; ``kv_bytes_per_1k`` is the K/V cache of 1000 positions in float32, half of it in bfloat16.
    """

    path: str
    architecture: str
    family: str
    problem: str | None
    parameters: int
    parameters_by_dtype: Mapping[str, int]
    stored_bytes: int
    num_files: int
    float32_bytes: int
    kv_bytes_per_1k: int
    facts: Mapping[str, Fact]
    cache_policies: tuple[str, ...]
    default_strategy: str
    has_tokenizer: bool

    @property
    def supported(self) -> bool:
        return self.problem is None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        facts = {name: fact._asdict() for name, fact in self.facts.items()}
        return {**asdict(self), "facts": facts, "supported": self.supported}

    def to_text(self, width: int = 100) -> str:
        """A table for a terminal."""
        table = Table(title=self.path, title_justify="left", show_header=False)
        for name, value, note in self._lines():
            table.add_row(name, value, note)
        console = Console(
            file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False, highlight=False
        )
        with console.capture() as capture:
            console.print(table)
        return capture.get()

    def _files(self) -> str:
        return f"{self.num_files} file{'' if self.num_files == 1 else 's'}"

    def _lines(self) -> list[tuple[str, str, str]]:
        dtypes = ", ".join(f"{dtype} {_count(number)}" for dtype, number in self.parameters_by_dtype.items())
        lines = [
            ("supported", "yes" if self.supported else "no", self.problem or ""),
            ("architecture", self.architecture or "unknown", self.family),
            ("parameters", _count(self.parameters), dtypes),
            (
                "weights",
                format_bytes(self.stored_bytes),
                f"{self._files()}; {format_bytes(self.float32_bytes)} as float32",
            ),
            ("tokenizer", "yes" if self.has_tokenizer else "no", "" if self.has_tokenizer else "token ids only"),
        ]
        lines += [(name.replace("_", " "), fact.value, fact.source) for name, fact in self.facts.items()]
        if self.supported:
            lines.append(
                ("K/V of 1000 positions", format_bytes(self.kv_bytes_per_1k), "float32; half of it in bfloat16")
            )
            lines.append(("cache policies", ", ".join(self.cache_policies), "decoders: all of `lacuna strategies`"))
            lines.append(("default strategy", self.default_strategy, "of requests that name none"))
        return lines


def inspect_checkpoint(path: str | Path, config: EngineConfig | None = None) -> CheckpointReport:
    """Report on a folder; CheckpointError only when there is no folder or no readable ``config.json`` in it."""
    folder = checkpoint_folder(path)
    architecture = _architecture(folder)
    checkpoint: Checkpoint | None = None
    problem: str | None = None
    try:
        checkpoint = open_checkpoint(folder, config)
        check_weights(build_model(checkpoint.spec, checkpoint.weights), checkpoint.weights)
    except (CheckpointError, ConfigError) as error:
        problem = str(error)
    weights = checkpoint.weights if checkpoint is not None else _readable_weights(folder)
    spec = checkpoint.spec if checkpoint is not None else None
    return CheckpointReport(
        path=str(folder),
        architecture=architecture,
        family=checkpoint.family.name if checkpoint is not None else "",
        problem=problem,
        parameters=weights.num_parameters,
        parameters_by_dtype=weights.parameters_by_dtype,
        stored_bytes=weights.num_bytes,
        num_files=len(weights.names_by_file()),
        float32_bytes=4 * weights.num_parameters,
        kv_bytes_per_1k=kv_bytes(spec, 1000) if spec is not None else 0,
        facts=_facts(checkpoint) if checkpoint is not None else {},
        cache_policies=suitable_cache_policies(spec) if spec is not None else (),
        default_strategy=" + ".join(DEFAULTS[spec.attention]) if spec is not None else "",
        has_tokenizer=any((folder / name).exists() for name in TOKENIZER_FILES),
    )


def kv_bytes(spec: ModelSpec, positions: int) -> int:
    """Keys and values of all layers, in float32."""
    return 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * positions * KV_BYTES


def suitable_cache_policies(spec: ModelSpec) -> tuple[str, ...]:
    return tuple(name for name in CACHE_POLICIES if spec.attention in CACHE_POLICIES.get(name).patterns)


def _facts(checkpoint: Checkpoint) -> Mapping[str, Fact]:
    spec, sources = checkpoint.spec, checkpoint.sources
    stops = ", ".join(map(str, sorted(spec.stop_token_ids))) or "none"
    heads = f"{spec.num_heads}/{spec.num_kv_heads} heads of {spec.head_dim}"
    return {
        "attention": Fact(spec.attention.replace("_", "-"), checkpoint.family.name),
        "network": Fact(f"{spec.num_layers} layers of {spec.hidden_size}, {heads}", CONFIG_FILE),
        **_expert_facts(spec, checkpoint.weights.num_parameters),
        "vocabulary": Fact(str(spec.vocab_size), CONFIG_FILE),
        "mask_token_id": Fact(str(spec.mask_token_id), sources["mask_token_id"]),
        "stop_token_ids": Fact(stops, sources["stop_token_ids"]),
        "block_length": Fact(str(spec.block_length), sources["block_length"]),
        "presets": Fact(f"those of {spec.preset_family}" if spec.preset_family else "none", sources["preset_family"]),
        "max_position_embeddings": Fact(str(spec.max_position_embeddings), sources["max_position_embeddings"]),
        "tied_head": Fact("yes" if spec.tie_word_embeddings else "no", sources["tie_word_embeddings"]),
    }


def active_parameters(spec: ModelSpec, total: int) -> int:
    """Of ``total`` parameters, those that take part in computing one token: all but the experts not chosen for it."""
    moe = spec.moe
    if moe is None:
        return total
    idle = moe.num_experts - moe.routing.experts_per_token
    num_mixtures = spec.num_layers - len(moe.dense_layers)
    return total - num_mixtures * idle * 3 * spec.hidden_size * moe.intermediate_size


def _expert_facts(spec: ModelSpec, total: int) -> Mapping[str, Fact]:
    moe = spec.moe
    if moe is None:
        return {}
    described = f"{moe.routing.experts_per_token} of {moe.num_experts} per token, {moe.intermediate_size} wide"
    if moe.shared_intermediate_size:
        described += f"; {moe.shared_intermediate_size} shared"
    if moe.dense_layers:
        described += f"; {len(moe.dense_layers)} of {spec.num_layers} layers dense"
    return {
        "experts": Fact(described, CONFIG_FILE),
        "active_parameters": Fact(_count(active_parameters(spec, total)), "per token"),
    }


def _architecture(folder: Path) -> str:
    config = JsonFields.read(folder / CONFIG_FILE)
    try:
        return read_architecture(config)
    except CheckpointError:
        return ""


def _readable_weights(folder: Path) -> WeightFiles:
    """What can be counted; the caller has the complaint already."""
    try:
        return read_weight_files(folder)
    except CheckpointError:
        return WeightFiles(folder, {})


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def format_bytes(number: int) -> str:
    """For people: two decimals of the largest binary unit that fits."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} bytes"
