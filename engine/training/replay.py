"""Two streams in one: samples to learn, and ordinary ones that keep what the model knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.training.data import EncodedSample
from engine.training.job import JsonValue, SampleStream
from engine.training.noise import Objective, Row


@dataclass(frozen=True, slots=True)
class Replay(Objective):
    """An objective for rows that keep what the model knows: its samples come from the ordinary stream."""

    objective: Objective

    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        return self.objective.row(sample, mask, end, rng)


class Repeated(SampleStream):
    """The given samples over and over, each pass in an order of its own."""

    def __init__(self, samples: Sequence[EncodedSample], seed: int) -> None:
        self._samples = samples
        self._seed = seed
        self._taken = 0
        self._turn = -1
        self._order: list[int] = []

    def take(self) -> EncodedSample:
        turn, place = divmod(self._taken, len(self._samples))
        if turn != self._turn:
            self._turn = turn
            self._order = np.random.default_rng((self._seed, turn)).permutation(len(self._samples)).tolist()
        self._taken += 1
        return self._samples[self._order[place]]

    def state(self) -> Mapping[str, JsonValue]:
        return {"taken": self._taken}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        taken = state["taken"]
        assert isinstance(taken, int)
        self._taken = taken


class DistillSamples(SampleStream):
    """Trajectories, and the ordinary stream for :class:`Replay`."""

    def __init__(self, trajectories: SampleStream, ordinary: SampleStream) -> None:
        self._trajectories = trajectories
        self._ordinary = ordinary

    def take(self) -> EncodedSample:
        return self._trajectories.take()

    def take_for(self, objective: Objective) -> EncodedSample:
        return (self._ordinary if isinstance(objective, Replay) else self._trajectories).take()

    def state(self) -> Mapping[str, JsonValue]:
        return {"trajectories": self._trajectories.state(), "ordinary": self._ordinary.state()}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        for name, stream in (("trajectories", self._trajectories), ("ordinary", self._ordinary)):
            inner = state[name]
            assert isinstance(inner, Mapping)
            stream.restore(inner)
