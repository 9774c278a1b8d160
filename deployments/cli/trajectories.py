"""Trajectories for ``lacuna distill``: decoded now, or read from a file."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from deployments.cli import options
from deployments.cli.questions import Questions
from deployments.cli.training_options import TrainingOptions
from engine.errors import ConfigError, InvalidRequestError

if TYPE_CHECKING:
    from engine.evaluation.verifiers import Verifier
    from engine.training.trajectories import Collection

SOURCES = "the built-in tasks"
NONE = "none"
POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryOptions:
    """What is asked, how it is decoded, and who marks the answers."""

    data: Annotated[
        Path | None, typer.Option(help="Questions with answers (JSON lines), as for lacuna eval.", show_default=SOURCES)
    ] = None
    prompts: Annotated[int, typer.Option(help="Prompts of the built-in tasks to decode.", min=1)] = 2000
    samples: Annotated[int, typer.Option(help="Answers to each prompt; several need a temperature.", min=1)] = 1
    temperature: Annotated[float, typer.Option(help="Of the decoding.", min=0)] = 0.0
    strategy: Annotated[
        str, typer.Option(help="How to decode, e.g. threshold,threshold=0.95.", show_default="the model's own")
    ] = ""
    max_tokens: Annotated[int, typer.Option(help="Longest canvas.", min=2)] = 96
    verify: Annotated[
        str, typer.Option(help="exact, number, code (runs it) or none.", show_default="what suits the data")
    ] = ""
    slots: Annotated[int, typer.Option(help="Prompts decoded at the same time.", min=1)] = 16


def read(path: Path) -> Collection:
    """An earlier run's."""
    from engine.training.trajectories import read_collection

    found = read_collection(path)
    _say_verdicts(found)
    return found


def collected(teacher: str, asked: TrajectoryOptions, training: TrainingOptions, path: Path) -> Collection:
    """Decode what the file lacks, with a progress bar on stderr."""
    from engine.strategy_text import parse_strategy_text
    from engine.training.collection import CollectConfig, Collector, heading
    from engine.training.trajectories import Collection, CollectionWriter

    questions = _questions(asked, training.seed)
    name = asked.verify or _usual(questions)
    config = CollectConfig(
        samples_per_prompt=asked.samples,
        temperature=asked.temperature,
        max_tokens=asked.max_tokens,
        seed=training.seed,
        format=questions.format,
        verifier=_verifier(questions, name),
    )
    engine = options.load_engine(teacher, options.engine_config(threads=training.threads, slots=asked.slots))
    strategy = engine.strategy(parse_strategy_text(asked.strategy) if asked.strategy else {})
    source = SOURCES if asked.data is None else asked.data.name
    about = heading(strategy, config, teacher, source, len(questions.samples), name)
    writer = CollectionWriter(path, about)
    with _bar("decoding") as on_progress:
        Collector(engine, strategy, config).run(questions.samples, writer, on_progress)
    found = Collection(about, writer.attempts)
    _say_verdicts(found)
    return found


def _questions(asked: TrajectoryOptions, seed: int) -> Questions:
    from engine.evaluation.formats.table import AUTO, PLAIN
    from engine.training.collection import training_questions

    if asked.data is None:
        return Questions(PLAIN, tuple(training_questions(asked.prompts, seed)))
    return Questions.read(asked.data, AUTO, None, 0, seed)


def _usual(questions: Questions) -> str:
    name = questions.format.verifier
    if name == "code":
        message = f"{questions.format.name} is marked by running the code that the model writes: say --verify code"
        raise InvalidRequestError(message, "verify")
    return name


def _verifier(questions: Questions, name: str) -> Verifier | None:
    from engine.evaluation.formats.format import VerifierName
    from engine.evaluation.verifiers import make_verifier

    if name == NONE:
        return None
    for known in get_args(VerifierName):
        if known == name:
            if known == "code" and not all(sample.tests for sample in questions.samples):
                raise InvalidRequestError("--verify code: the data has no tests to run", "verify")
            return make_verifier(known)
    choices = ", ".join((*get_args(VerifierName), NONE))
    raise ConfigError(f"--verify: there is no {name!r}; choose one of {choices}", "verify")


def by_first(collect: Callable[[], Collection], path: Path) -> Collection:
    """Of the processes of a training the first collects into the file, and the others read it when it is complete;
    their launcher ends them if the first fails."""
    from engine.training.trajectories import is_complete, read_collection
    from engine.training.world import World

    if World.of_environment().is_first:
        return collect()
    while not is_complete(path):
        time.sleep(POLL_S)
    return read_collection(path)


@contextmanager
def _bar(text: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say_verdicts(found: Collection) -> None:
    """Kept and rejected by kind, on the first process's stderr."""
    from engine.training.trajectories import RIGHT, tally
    from engine.training.world import World

    if not World.of_environment().is_first:
        return

    counts = tally(found.attempts)
    for kind, verdicts in (*counts.items(), ("all", sum(counts.values(), Counter()))):
        total = sum(verdicts.values())
        reasons = ", ".join(f"{number} {name}" for name, number in verdicts.most_common() if name != RIGHT)
        rejected = f"; rejected: {reasons}" if reasons else ""
        print(f"{kind:>14}  {verdicts[RIGHT]} of {total} kept{rejected}", file=sys.stderr)
