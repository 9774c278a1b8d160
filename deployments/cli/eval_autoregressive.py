"""``lacuna eval`` of an autoregressive checkpoint: the baseline of what was adapted from it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError, InvalidRequestError

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.evaluation.comparison import Entry
    from engine.evaluation.evaluate import EvalConfig
    from engine.evaluation.tasks.sample import Sample
    from engine.tokenizer import Tokenizer

Asked = tuple["EvalConfig", "tuple[Sample, ...]"]


def check_greedy(options: Sequence[str], temperature: float, num_samples: int) -> None:
    """InvalidRequestError for what only a diffusion model has."""
    if options:
        given = ", ".join(options)
        message = f"--strategy {given}: this checkpoint is autoregressive and has none; adapt it first (lacuna adapt)"
        raise InvalidRequestError(message, "strategy")
    if temperature or num_samples > 1:
        raise InvalidRequestError("--temperature: autoregressive checkpoints are evaluated greedily", "temperature")


def run(folder: Path, settings: EngineConfig, max_tokens: int, ask: Callable[[Tokenizer], Asked]) -> tuple[Entry, ...]:
    """One entry, with a progress bar on stderr. ConfigError for settings that only the engine has."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from engine.config import resolve_device, resolve_dtype
    from engine.evaluation.autoregressive import LABEL, AutoregressiveModel
    from engine.evaluation.comparison import Entry

    if settings.quantization != "none":
        message = f"--quantization {settings.quantization}: autoregressive checkpoints are evaluated without"
        raise ConfigError(message, "quantization")
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    print(f"lacuna: {folder.name} is autoregressive: one forward per token, by transformers", file=sys.stderr)
    device = resolve_device(settings)
    model = AutoregressiveModel(folder, str(device), resolve_dtype(settings, device, torch.float32))
    config, samples = ask(model.tokenizer)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(LABEL, total=len(samples))
        report = model.evaluate(
            samples, max_tokens, config, lambda one: bar.update(task, completed=one.finished), settings.max_num_seqs
        )
    return (Entry(LABEL, report),)
