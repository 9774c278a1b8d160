"""The ranks of the benchmark: rank 0 is this process, the others are processes of their own that outlive a layout."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from engine.bench.ranks.recording import Record, RecordedChannel, RecordedExecutor, RecordedGroup, Recorder
from engine.bench.throughput.measure import TimedModel, Times
from engine.build import assemble_core, build_follower
from engine.config import EngineConfig
from engine.errors import EngineDeadError
from engine.executor import Executor, LocalExecutor
from engine.llm_engine import LLMEngine
from engine.lockstep import LeadingExecutor, follow
from engine.model_runner import ModelRunner
from engine.models.checkpoint import Checkpoint
from engine.models.loader import load_model
from engine.models.registry import model_family
from engine.models.spec import ModelSpec
from engine.models.weight_files import read_weight_files
from engine.parallel import ALONE, Ranks, call, join, leave, listen
from engine.tokenizer import MissingTokenizer

TIMEOUT_S = 300.0
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Job:
    """A network whose weights lie in ``folder``, and the settings of an engine over it."""

    folder: Path
    spec: ModelSpec
    options: dict[str, Any]

    @property
    def config(self) -> EngineConfig:
        return EngineConfig(**self.options)


class Leader:
    """An engine over all ranks of a layout, and what is recorded of them."""

    def __init__(self, job: Job, ranks: Ranks) -> None:
        self.recorder = Recorder()
        self.times = Times()
        self.channel = None if ranks.layout.world_size == 1 else RecordedChannel(TIMEOUT_S, self.recorder)
        self.leading: LeadingExecutor | None = None
        config, recorded = job.config, _recorded(ranks, self.recorder)
        model = load_model(job.folder, job.spec, torch.float32, CPU, ranks=recorded)
        max_model_len = config.max_model_len or job.spec.max_position_embeddings
        core = assemble_core(
            TimedModel(model, self.times), config, max_model_len, executor=self._executor, ranks=recorded
        )
        self.engine = LLMEngine(core, job.spec, MissingTokenizer(), config, max_model_len)

    def _executor(self, runner: ModelRunner) -> Executor:
        if self.channel is None:
            return RecordedExecutor(LocalExecutor(runner), self.recorder)
        self.leading = LeadingExecutor(runner, self.channel)
        return RecordedExecutor(self.leading, self.recorder)


class Processes:
    """Owns ranks 1 and up of the largest layout; a smaller one leaves some of them idle."""

    def __init__(self, world_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(1, world_size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)

    @contextmanager
    def lead(self, job: Job) -> Iterator[Leader]:
        """An engine over the ranks of the job's layout; :meth:`records` ends it."""
        layout = job.config.layout
        if layout.world_size == 1:
            yield Leader(job, ALONE)
            return
        store = listen(layout.world_size, TIMEOUT_S)
        for pipe in self._pipes[: layout.world_size - 1]:
            pipe.send((job.folder, job.spec, job.options, store.port))
        with ExitStack() as stack:
            ranks = join(layout, 0, store, CPU, TIMEOUT_S)
            stack.callback(leave)
            yield Leader(job, ranks)

    def records(self, leader: Leader) -> list[Record]:
        """Stop the other ranks; what every rank has recorded, in rank order."""
        records = [leader.recorder.record]
        if leader.leading is None:
            return records
        leader.leading.close()
        for rank, pipe in enumerate(self._pipes[: leader.engine.config.layout.world_size - 1], 1):
            if not pipe.poll(TIMEOUT_S):
                raise EngineDeadError(f"rank {rank} has not said what it did")
            records.append(Record(**pipe.recv()))
        return records

    def close(self) -> None:
        """End the processes, whatever they do."""
        for process in self._processes:
            process.terminate()
            process.join(TIMEOUT_S)


def _recorded(ranks: Ranks, recorder: Recorder) -> Ranks:
    if ranks.layout.world_size == 1:
        return ranks
    tensor = ranks.tensor if ranks.layout.tensor == 1 else RecordedGroup(ranks.tensor, recorder)
    return replace(ranks, world=RecordedGroup(ranks.world, recorder), tensor=tensor)


def _serve(rank: int, pipe: Connection) -> None:
    """A follower's process: load, follow, tell, and again until it is ended."""
    torch.set_num_threads(1)
    while True:
        folder, spec, options, port = pipe.recv()
        _follow(rank, Job(folder, spec, options), port, pipe)


def _follow(rank: int, job: Job, port: int, pipe: Connection) -> None:
    layout, recorder = job.config.layout, Recorder()
    store = call("127.0.0.1", port, layout.world_size, TIMEOUT_S)
    ranks = _recorded(join(layout, rank, store, CPU, TIMEOUT_S), recorder)
    channel = RecordedChannel(TIMEOUT_S, recorder)
    checkpoint = Checkpoint(
        path=job.folder,
        family=model_family(job.spec.architecture),
        spec=job.spec,
        weights=read_weight_files(job.folder),
        sources={},
    )
    max_model_len = job.config.max_model_len or job.spec.max_position_embeddings
    follow(build_follower(checkpoint, job.config, max_model_len, ranks), channel, recorder.end_step)
    leave()
    pipe.send(asdict(recorder.record))
