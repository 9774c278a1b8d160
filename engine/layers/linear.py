"""Linear projections. Parameters are allocated and left uninitialised: a loader or a trainer fills them.

Between the two projections of a sublayer its width is divided over the ranks of a group: the first makes a rank's part
of the width (:class:`PackedLinear`), the second sums up what the parts contribute (:class:`Linear`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers.division import Division, Span
from engine.layers.int8 import Int8Matrix
from engine.parallel import ALONE, Group

LEAST_TURNED, MOST_TURNED = 8, 128
"""From how many to how many positions a CPU multiplies the weight by the positions instead of the positions by the
weight: the library packs its second operand, and the weight is by far the larger one."""

LEAST_IN_STRIPS, MOST_IN_STRIPS = 4, 8
"""From how many to how many positions a CPU multiplies by a large weight strip by strip, each a small product that the
library does without packing: a block of SDAR has 4. For 1 to 3 it packs nothing anyway."""

STRIP, LARGE = 64, 2**19
"""Rows of the weight that make a strip, and numbers from which on a weight is large."""

HAS_MKL = torch.backends.mkl.is_available()


class Linear(nn.Module):
    """``x @ weight.T + bias`` with ``weight`` of shape ``[out, in]``.

    ``inputs`` is the range of the input that this rank of ``group`` has, with those columns of the weight; None: all.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        inputs: Span | None = None,
        group: Group = ALONE.tensor,
    ) -> None:
        super().__init__()
        start, end = inputs or (0, in_features)
        self._group = group
        self._adds_bias = group.part.index == 0
        self.weight = nn.Parameter(torch.empty(out_features, end - start))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.int8: Int8Matrix | None = None
        self.divisions: Mapping[str, Sequence[Division]] = {"weight": (Division(1, in_features, ((start, end),)),)}

    def forward(self, x: Tensor) -> Tensor:
        return self._group.all_reduce(self.partial(x))

    def partial(self, x: Tensor) -> Tensor:
        """What this rank's inputs contribute; over the ranks of the group it sums up to the output."""
        bias = self.bias if self._adds_bias else None
        return product(x, self.weight, bias).contiguous() if self.int8 is None else _add(self.int8(x), bias)

    def quantize(self) -> None:
        """Multiply by int8 from now on; ``weight`` is left without rows."""
        self.int8 = Int8Matrix(self.weight)
        self.weight = nn.Parameter(self.weight.new_empty(0, self.weight.shape[1]), requires_grad=False)


class PackedLinear(nn.Module):
    """Several projections of one input as a single product: ``weight`` stacks their rows in order.

    Used for query/key/value and for gate/up. ``rows[i]`` is the half-open row range of part ``i`` in the whole; of the
    rows of each part this rank has those in ``outputs`` (None: all).
    """

    def __init__(
        self,
        in_features: int,
        part_sizes: Sequence[int],
        *,
        bias: bool = False,
        outputs: Sequence[Span] | None = None,
    ) -> None:
        super().__init__()
        ends = tuple(accumulate(part_sizes))
        self.rows = tuple(zip((0, *ends[:-1]), ends, strict=True))
        outputs = outputs or [(0, size) for size in part_sizes]
        self.part_sizes = tuple(end - start for start, end in outputs)
        self.weight = nn.Parameter(torch.empty(sum(self.part_sizes), in_features))
        self.bias = nn.Parameter(torch.empty(sum(self.part_sizes))) if bias else None
        spans = tuple((row + start, row + end) for (row, _), (start, end) in zip(self.rows, outputs, strict=True))
        self.int8: Int8Matrix | None = None
        divided = (Division(0, ends[-1], spans),)
        self.divisions: Mapping[str, Sequence[Division]] = {"weight": divided, "bias": divided}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One tensor per part."""
        parts: tuple[Tensor, ...] = self.packed(x).split(self.part_sizes, dim=-1)
        return parts

    def packed(self, x: Tensor) -> Tensor:
        """All parts side by side; laid out as :func:`product` leaves it."""
        return product(x, self.weight, self.bias) if self.int8 is None else _add(self.int8(x), self.bias)

    def quantize(self) -> None:
        """Multiply by int8 from now on; ``weight`` is left without rows."""
        self.int8 = Int8Matrix(self.weight)
        self.weight = nn.Parameter(self.weight.new_empty(0, self.weight.shape[1]), requires_grad=False)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``. Few rows come back column by column in memory: a product that follows is faster for it,
    and what goes along a row wants ``contiguous()``."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dim() != 2:
        return functional.linear(x, weight, bias)
    rows = x.shape[0]
    few = LEAST_IN_STRIPS <= rows <= MOST_IN_STRIPS and weight.numel() >= LARGE
    if few and can_be_in_strips(weight):
        return _add(in_strips(x, weight), bias)
    if LEAST_TURNED <= rows <= MOST_TURNED or (few and weight.dtype != torch.float32):
        return _add(torch.mm(weight, x.t()).t(), bias)
    return functional.linear(x, weight, bias)


def can_be_in_strips(weight: Tensor) -> bool:
    """Whether :func:`in_strips` can take it, and should: in bfloat16 a turned product is faster, and without MKL torch
    calls a library once per strip."""
    return HAS_MKL and weight.dtype == torch.float32 and len(weight) % STRIP == 0


def in_strips(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T``, a strip of the weight after the other."""
    num_strips = len(weight) // STRIP
    strips = weight.view(num_strips, STRIP, -1).transpose(1, 2)
    return torch.bmm(x.expand(num_strips, *x.shape), strips).transpose(0, 1).reshape(len(x), len(weight))


def _add(numbers: Tensor, bias: Tensor | None) -> Tensor:
    return numbers if bias is None else numbers + bias
