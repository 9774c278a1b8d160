"""One of the processes of ``test_deepspeed_backend.py``: every ZeRO stage, one after the other. Argument: a folder."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from engine.training.job import Job
from engine.training.metrics import TrainProgress
from engine.training.world import World
from engine.training.zero import ZeroSettings
from tests.engine.training.tiny_job import ADAMW, SPEC, run, tiny_job

STEPS = 4
STOP = 2


def job() -> Job:
    """Rows of one length: then the batches of two processes hold what two micro-batches of one process hold. The head
    is the embedding, which ZeRO must find in both places."""
    return tiny_job(STEPS, ADAMW, row_lengths=(48,), spec=replace(SPEC, tie_word_embeddings=True))


def stop(progress: TrainProgress) -> None:
    if progress.step == STOP:
        os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> None:
    world = World.of_environment()
    with world.joined(torch.device("cpu")):
        for stage in range(4):
            run(job(), folder / f"zero{stage}", zero=ZeroSettings(stage))
        for stage in (2, 3):
            stopped = run(job(), folder / f"stopped{stage}", stop, zero=ZeroSettings(stage))
            assert (stopped.signal, stopped.step) in ((signal.SIGTERM, STOP), (signal.SIGTERM, STOP + 1))
            run(job(), folder / f"stopped{stage}", zero=ZeroSettings(stage), resume=True)
        run(job(), folder / "bfloat16", zero=ZeroSettings(2, bfloat16=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
