"""Training samples from JSONL files of any size: lines are found by their offsets and read when their turn comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.training.data import EncodedSample
from engine.training.job import BadRows, JsonValue, SampleStream

Encode = Callable[[Mapping[str, object]], list[EncodedSample]]
"""Samples of one row, none where the row is not meant for this training; BadRowError where it is unusable."""


class BadRowError(Exception):
    """A row that cannot be trained on; the message is the reason."""


class Line(NamedTuple):
    """A row's place: number of the file, number of the line from 1."""

    file: int
    line: int


class JsonlFile:
    """The lines of one file that are not blank; eight bytes of memory for each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        offsets, numbers, offset = [], [], 0
        with self._open() as stream:
            for number, line in enumerate(stream, start=1):
                if not line.isspace():
                    offsets.append(offset)
                    numbers.append(number)
                offset += len(line)
        if not offsets:
            raise ConfigError(f"{path} has no rows", "data")
        self._offsets = np.array(offsets)
        self.numbers = np.array(numbers, dtype=np.uint32)

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, index: int) -> Mapping[str, object]:
        """The row of a line; BadRowError where it holds no JSON object."""
        with self._open() as stream:
            stream.seek(self._offsets[index])
            line = stream.readline()
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # bad JSON or bad UTF-8
            raise BadRowError(f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadRowError(f"not a JSON object but a {type(row).__name__}")
        return row

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror or error}", "data") from error


class JsonlSamples(SampleStream):
    """The samples of all rows, epoch after epoch, each time in another order that follows from seed and epoch.

    Bad rows are counted and named when they are met for the first time. ConfigError at the end of an epoch in which a
    file had nothing but bad rows, or no file had a sample.
    """

    def __init__(self, paths: Sequence[Path], encode: Encode, seed: int, bad_rows: BadRows | None = None) -> None:
        self._files = [JsonlFile(path) for path in paths]
        self._starts = np.cumsum([0, *map(len, self._files)])
        self._encode = encode
        self._seed = seed
        self._bad_rows = BadRows() if bad_rows is None else bad_rows
        self._usable = [False] * len(self._files)
        self._found_any = False
        self._epoch, self._row, self._piece = 0, 0, 0
        self._pieces: list[EncodedSample] = []
        self._order = self._shuffled(0)

    @property
    def bad_rows(self) -> BadRows:
        return self._bad_rows

    def take(self) -> EncodedSample:
        while self._piece == len(self._pieces):
            self._next_row()
        self._piece += 1
        return self._pieces[self._piece - 1]

    def state(self) -> Mapping[str, JsonValue]:
        return {
            "epoch": self._epoch,
            "row": self._row,
            "piece": self._piece,
            "usable": list(self._usable),
            "found_any": self._found_any,
        }

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        place = cast("dict[str, Any]", state)
        self._begin(place["epoch"])
        self._row, self._usable, self._found_any = place["row"], list(place["usable"]), place["found_any"]
        if place["piece"]:
            self._pieces, self._piece = self._samples(int(self._order[self._row - 1])), place["piece"]

    def _begin(self, epoch: int) -> None:
        self._epoch, self._row, self._piece, self._pieces = epoch, 0, 0, []
        self._order = self._shuffled(epoch)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(int(self._starts[-1]))

    def _next_row(self) -> None:
        if self._row == len(self._order):
            self._check_epoch()
            self._begin(self._epoch + 1)
        number = int(self._order[self._row])
        self._row += 1
        self._piece, self._pieces = 0, []
        try:
            self._pieces = self._samples(number)
        except BadRowError as error:
            if self._epoch == 0:  # every row is met once in an epoch
                file, line = self._place(number)
                self._bad_rows.add(f"{self._files[file].path}:{line}", str(error))
        else:
            self._usable[self._place(number).file] = True
            self._found_any |= bool(self._pieces)

    def _samples(self, number: int) -> list[EncodedSample]:
        file = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._encode(self._files[file].read(number - int(self._starts[file])))

    def _place(self, number: int) -> Line:
        file = int(np.searchsorted(self._starts, number, side="right")) - 1
        return Line(file, int(self._files[file].numbers[number - int(self._starts[file])]))

    def _check_epoch(self) -> None:
        for file, usable in zip(self._files, self._usable, strict=True):
            if not usable:
                shown = "; ".join(text for text in self._bad_rows.examples if text.startswith(f"{file.path}:"))
                raise ConfigError(f"{file.path} has no usable row: {shown or 'all are bad'}", "data")
        if not self._found_any:
            names = ", ".join(str(file.path) for file in self._files)
            raise ConfigError(f"no row of {names} is meant for this kind of training; see --stage", "data")
