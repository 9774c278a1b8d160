"""From a job's samples to batches, so that it can be stopped and taken up anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from engine.training.batches import Batch, Batcher
from engine.training.job import Job, Stage
from engine.training.noise import Row
from engine.training.world import World


class Feed:
    """Batches of one process. Of the stream's samples, process r of W gets r, r + W, r + 2 W ...

    A row follows from the seed, the sample and its number alone; ``stage`` says which mixture of objectives holds.
    """

    def __init__(self, job: Job, seed: int, world: World, stage: Callable[[], Stage]) -> None:
        self._job = job
        self._seed = seed
        self._world = world
        self._stage = stage
        self._batcher = Batcher(job.tokens_per_step, job.end, job.row_lengths, packed=job.packed)
        self.num_samples = 0

    @property
    def num_dropped(self) -> int:
        """Rows of this process that were longer than any row may be."""
        return self._batcher.num_dropped

    def batches(self) -> Iterator[Batch]:
        """Batches without end."""
        while True:
            row = self._next_row()
            if row is not None:
                yield from self._batcher.add(row)

    def _next_row(self) -> Row | None:
        """The row of the next sample; None where it is another process's."""
        number = self.num_samples
        self.num_samples += 1
        mixture = self._stage().mixture
        weights = np.array([share.weight for share in mixture])
        rng = np.random.default_rng((self._seed, number))
        objective = mixture[rng.choice(len(mixture), p=weights / weights.sum())].objective
        sample = self._job.samples.take_for(objective)
        if number % self._world.size != self._world.rank:
            return None
        return objective.row(sample, self._job.mask, self._job.end, rng)

    def save(self, folder: Path) -> None:
        """Write this process's place: counts, the stream's state, rows that wait for others."""
        bad_rows = self._job.samples.bad_rows
        place = {
            "samples": self.num_samples,
            "dropped": self.num_dropped,
            "stream": self._job.samples.state(),
            "bad_rows": None if bad_rows is None else bad_rows.state(),
        }
        (folder / f"feed-{self._world.rank}.json").write_text(json.dumps(place))
        save_file(_to_arrays(self._batcher.waiting), folder / f"rows-{self._world.rank}.safetensors")

    def restore(self, folder: Path) -> None:
        """Go to the place that :meth:`save` wrote."""
        place = json.loads((folder / f"feed-{self._world.rank}.json").read_text())
        self.num_samples = place["samples"]
        self._batcher.num_dropped = place["dropped"]
        self._job.samples.restore(place["stream"])
        if self._job.samples.bad_rows is not None and place["bad_rows"] is not None:
            self._job.samples.bad_rows.restore(**place["bad_rows"])
        for row in _to_rows(load_file(folder / f"rows-{self._world.rank}.safetensors")):
            assert not list(self._batcher.add(row)), "waiting rows fill no batch"


def _to_arrays(rows: list[Row]) -> dict[str, NDArray[np.generic]]:
    """Every field of every row that is not None, as ``number.field``."""
    return {
        f"{number:08d}.{field.name}": np.ascontiguousarray(value)
        for number, row in enumerate(rows)
        for field in fields(row)
        if (value := getattr(row, field.name)) is not None
    }


def _to_rows(arrays: dict[str, NDArray[np.generic]]) -> list[Row]:
    rows: dict[str, dict[str, object]] = {}
    for name in sorted(arrays):
        number, _, field = name.partition(".")
        value = arrays[name]
        rows.setdefault(number, {})[field] = value.item() if value.ndim == 0 or field == "normaliser" else value
    return [Row(**values) for values in rows.values()]  # type: ignore[arg-type]
