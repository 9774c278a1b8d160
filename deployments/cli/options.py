"""Options that several commands share, and the free knobs of strategies (``--threshold 0.9``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import ValidationError

from deployments.config import EMBEDDED_MODELS, resolve_checkpoint
from engine.errors import InvalidRequestError
from engine.strategy_text import parse_value

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.llm_engine import LLMEngine

T = TypeVar("T")

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Folder of a checkpoint, or the id of an embedded model.", show_default=True),
]
Decoder = Annotated[str, typer.Option(help="Decoder; see `lacuna strategies`.", show_default="the model's own")]
Cache = Annotated[str, typer.Option(help="Cache policy.", show_default="the model's own")]
BlockLength = Annotated[int, typer.Option(help="Positions denoised together.", show_default="the model's own", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Quantization = Annotated[str, typer.Option(help="none or int8: weights of projections and output head, on a CPU.")]
Threads = Annotated[int, typer.Option(help="Threads of one torch operation.", show_default="torch's choice", min=0)]

ServedModels = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="Folder, `id=folder` or embedded id; may be repeated.", show_default="embedded models"
    ),
]
SettingsFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file with the application's settings.", show_default="none")
]
SettingTexts = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting as key=value, e.g. max_queue_depth=64; may be repeated."),
]
MinReplicas = Annotated[
    int | None, typer.Option(help="Fewest replicas of each model; 0: none while nobody asks.", min=0)
]
MaxReplicas = Annotated[
    int | None, typer.Option(help="Most replicas of each model; more start as the queue grows.", min=1)
]
TensorRanks = Annotated[
    int | None, typer.Option("--tp", help="Ranks that share attention and dense layers of each model.", min=1)
]
ExpertRanks = Annotated[
    int | None, typer.Option("--ep", help="Ranks that share the experts of each mixture-of-experts model.", min=1)
]
Host = Annotated[str, typer.Option(help="Address of the HTTP port; gRPC listens on every interface.")]
HttpPort = Annotated[int, typer.Option(help="HTTP port.", min=1, max=65535)]
GrpcPort = Annotated[int, typer.Option(help="gRPC port (plain text, no TLS).", min=1, max=65535)]
RayAddress = Annotated[str, typer.Option(help="local: a Ray of its own; auto or host:port: join a cluster.")]

DEFAULT_MODEL = EMBEDDED_MODELS[0]


def strategy_options(decoder: str, cache: str, block_length: int, extra: Sequence[str]) -> dict[str, object]:
    """The strategy as a request would give it; ``extra`` are the knobs, ``--name value`` or ``--name=value``."""
    named = {"decoder": decoder, "cache": cache, "block_length": block_length}
    return {name: value for name, value in named.items() if value} | parse_knobs(extra)


def parse_knobs(extra: Sequence[str]) -> dict[str, object]:
    """Values are read as JSON where they are JSON, else as text."""
    knobs: dict[str, object] = {}
    words = list(extra)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise InvalidRequestError(f"unexpected argument {word!r}; put a prompt of several words in quotes")
        name, separator, value = word[2:].partition("=")
        if not separator:
            if not words:
                raise InvalidRequestError(f"--{name} needs a value")
            value = words.pop(0)
        knobs[name.replace("-", "_")] = parse_value(value)
    return knobs


def checked(make: Callable[..., T], **fields: object) -> T:
    """``make(**fields)``; an invalid value is a user's error that names the option."""
    try:
        return make(**fields)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        name = str(finding["loc"][0])
        message = f"--{name.replace('_', '-')}: {finding['msg']}, got {finding['input']!r}"
        raise InvalidRequestError(message, name) from None


def engine_config(
    device: str = "auto", dtype: str = "auto", quantization: str = "none", threads: int = 0, slots: int = 1
) -> EngineConfig:
    """The settings of an engine that a command runs in its own process; ConfigError names a wrong one."""
    from engine.config import parse_engine_config

    return parse_engine_config(
        {
            "device": device,
            "dtype": dtype,
            "quantization": quantization,
            "num_threads": threads or None,
            "max_num_seqs": slots,
        }
    )


def load_engine(model: str, config: EngineConfig) -> LLMEngine:
    """The engine of a checkpoint; a progress bar on stderr while large weights load."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from engine.llm_engine import LLMEngine

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("loading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console, transient=True
    )
    bar.disable = not console.is_terminal
    with bar:
        task = bar.add_task("loading", total=None)
        return LLMEngine.from_pretrained(
            resolve_checkpoint(model),
            config,
            lambda progress: bar.update(task, completed=progress.loaded_bytes, total=progress.total_bytes),
        )
