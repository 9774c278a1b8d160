"""Sharded engines over plain processes with gloo: rank 0 is the test's own process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from engine.build import load_follower
from engine.channel import ControlChannel
from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.lockstep import LeadingExecutor, follow
from engine.model_runner import ModelRunner
from engine.parallel import Ranks, call, join, leave, listen

TIMEOUT_S = 60.0
CPU = torch.device("cpu")


class RankProcesses:
    """Owns the processes of ranks 1 and up; they outlive the engines that run over them, one at a time."""

    def __init__(self, world_size: int) -> None:
        self._pipes: list[Connection] = []
        self._processes = []
        context = multiprocessing.get_context("spawn")
        for rank in range(1, world_size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world_size, theirs), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)

    @property
    def world_size(self) -> int:
        return 1 + len(self._processes)

    @contextmanager
    def engine(self, folder: Path, **options: Any) -> Iterator[LLMEngine]:
        """An engine over all ranks; ``options`` are those of EngineConfig, its layout must need just these ranks."""
        settings: dict[str, Any] = {"max_model_len": 64, "device": "cpu", "num_threads": 1} | options
        config = EngineConfig(**settings)
        store = listen(self.world_size, TIMEOUT_S)
        self._tell((str(folder), asdict(config), store.port))
        with ExitStack() as stack:
            ranks = join(config.layout, 0, store, CPU, TIMEOUT_S)
            stack.callback(leave)
            channel = ControlChannel(TIMEOUT_S)
            executors: list[LeadingExecutor] = []

            def lead(runner: ModelRunner) -> LeadingExecutor:
                executors.append(LeadingExecutor(runner, channel))
                return executors[0]

            yield self._load(folder, config, ranks, lead)
            executors[0].close()

    def close(self) -> None:
        """End the processes."""
        self._tell(None)
        for process in self._processes:
            process.join(TIMEOUT_S)

    def _load(self, folder: Path, config: EngineConfig, ranks: Ranks, lead: Any) -> LLMEngine:
        engine = LLMEngine.from_pretrained(folder, config, ranks=ranks, executor=lead)
        for pipe in self._pipes:
            assert pipe.poll(TIMEOUT_S), "a rank does not load"
            error = pipe.recv()
            assert error is None, error
        return engine

    def _tell(self, job: object) -> None:
        for pipe in self._pipes:
            pipe.send(job)


def _serve(rank: int, world_size: int, pipe: Connection) -> None:
    """A follower's process: load, follow, and again."""
    while (job := pipe.recv()) is not None:
        folder, options, port = job
        config = EngineConfig(**options)
        ranks = join(config.layout, rank, call("127.0.0.1", port, world_size, TIMEOUT_S), CPU, TIMEOUT_S)
        channel = ControlChannel(TIMEOUT_S)
        try:
            runner = load_follower(folder, config, ranks)
        except Exception as error:
            pipe.send(f"rank {rank}: {type(error).__name__}: {error}")
            raise
        pipe.send(None)
        follow(runner, channel)
        leave()
