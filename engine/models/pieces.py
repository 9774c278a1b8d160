"""Which part of a stored tensor a rank needs, and where in its own parameter that goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import NamedTuple

from engine.layers.division import Held, Span
from engine.models.spec import CheckpointTensor


class Piece(NamedTuple):
    """``source`` picks from the stored tensor what ``target`` picks from this rank's parameter."""

    source: tuple[slice, ...]
    target: tuple[slice, ...]

    @property
    def numel(self) -> int:
        return prod(part.stop - part.start for part in self.target)


def stored_shape(tensor: CheckpointTensor, held: Held) -> tuple[int, ...]:
    """The whole tensor's shape, as a checkpoint must have it."""
    return tuple(end - start for start, end in _region(tensor, held))[_leading(tensor) :]


def pieces(tensor: CheckpointTensor, held: Held) -> Iterator[Piece]:
    """What this rank takes of the tensor: boxes that do not overlap, none where another rank has it all."""
    overlaps = [list(_overlaps(*sizes)) for sizes in zip(_region(tensor, held), held.spans, strict=True)]
    for box in product(*overlaps):
        source, target = zip(*box, strict=True)
        yield Piece(source[_leading(tensor) :], target)


class Wanted(NamedTuple):
    """What this rank takes of one stored tensor, and for which parameter."""

    parameter: str
    pieces: list[Piece]

    @property
    def numel(self) -> int:
        return sum(piece.numel for piece in self.pieces)


def wanted_pieces(held: Mapping[str, Held], targets: Mapping[str, CheckpointTensor]) -> Mapping[str, Wanted]:
    """By the name of the stored tensor; tensors that others have are left out."""
    found = {name: Wanted(each.parameter, list(pieces(each, held[each.parameter]))) for name, each in targets.items()}
    return {name: wanted for name, wanted in found.items() if wanted.pieces}


def _region(tensor: CheckpointTensor, held: Held) -> list[Span]:
    """The tensor's place in the whole parameter."""
    region = [(0, size) for size in held.sizes]
    rows = _leading(tensor)
    region[rows] = (tensor.start, held.sizes[rows] if tensor.end is None else tensor.end)
    if tensor.expert is not None:
        region[0] = (tensor.expert, tensor.expert + 1)
    return region


def _leading(tensor: CheckpointTensor) -> int:
    """Dimensions of the parameter that the stored tensor lacks."""
    return 0 if tensor.expert is None else 1


def _overlaps(wanted: Span, here: tuple[Span, ...]) -> Iterator[tuple[slice, slice]]:
    """What a rank has of the ``wanted`` range: counted from its beginning, and from that of the rank's own ranges."""
    offset = 0
    for start, end in here:
        low, high = max(start, wanted[0]), min(end, wanted[1])
        if low < high:
            yield slice(low - wanted[0], high - wanted[0]), slice(offset + low - start, offset + high - start)
        offset += end - start
