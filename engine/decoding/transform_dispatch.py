"""Applying the transforms that the requests of a forward ask for, each to its own rows.

Shape legend: N decoded blocks, M open positions of these blocks, P masked positions that the forward computes, V logit
columns of this rank, L positions of a slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.columns import Columns
from engine.decoding.decoder import EMPTY
from engine.decoding.dispatch import BlockRows
from engine.decoding.places import Places
from engine.decoding.transform import InputTransform, LogitsTransform, Transform, TransformRows
from engine.decoding.transforms import TRANSFORMS
from engine.decoding.vocabulary import Vocabulary
from engine.registry import Registry
from engine.transfer import to_device


@dataclass(frozen=True, slots=True)
class Users:
    """Who uses which transform. ``transforms_N``, on the host: bit i for the i-th transform; ``begins_N`` marks blocks
    at their first step. The device arrays are those of TransformRows."""

    transforms_N: npt.NDArray[np.int64]
    begins_N: npt.NDArray[np.bool_]
    canvas_NL: Tensor
    prompt_len_N: Tensor
    limit_N: Tensor


class TransformDispatch:
    """Owns one instance of each transform, and declares its columns when a request first asks for it."""

    def __init__(self, columns: Columns, transforms: Registry[Transform] = TRANSFORMS) -> None:
        self._columns = columns
        self._transforms = tuple((name, transforms.get(name)()) for name in transforms)

    def admit(self, slot: int, knobs: Mapping[str, Mapping[str, object]], block_length: int) -> None:
        """Set up ``slot`` for a request that uses the transforms in ``knobs`` with these values."""
        for name, transform in self._transforms:
            if name in knobs:
                self._columns.declare(f"knobs.{name}", transform.knobs())
                self._columns.declare(f"state.{name}", transform.state, block_length)
                self._columns.write(f"knobs.{name}", slot, knobs[name])
                self._columns.write(f"state.{name}", slot, {})

    def changes_inputs(self, knobs: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether an input transform is among the transforms in ``knobs``."""
        return any(name in knobs and isinstance(transform, InputTransform) for name, transform in self._transforms)

    def begin(self, users: Users, slots_N: Tensor) -> None:
        """Forget what is remembered of earlier blocks, in slots whose block begins."""
        for name, _, used_N in self._used(users.transforms_N):
            beginning = np.flatnonzero(used_N & users.begins_N)
            if len(beginning) and self._columns.names(f"state.{name}"):
                self._columns.reset(f"state.{name}", slots_N[to_device(beginning, slots_N.device)])

    def change(
        self,
        logits_MV: Tensor,
        vocabulary: Vocabulary,
        places: Places,
        users: Users,
        blocks: BlockRows,
    ) -> None:
        """Apply the logits transforms, in place, where the blocks ask for them."""
        for name, transform, used_N in self._used(users.transforms_N):
            if not isinstance(transform, LogitsTransform) or (used := places.where(used_N)) is None:
                continue
            own = places.only(used)
            slots_M = blocks.slots_N[own.block_M]
            rows = TransformRows(
                block_M=own.block_M,
                offset_M=own.offset_M,
                tokens_NB=blocks.tokens_NB,
                masked_NB=blocks.masked_NB,
                positions_NB=blocks.positions_NB,
                step_N=blocks.step_N,
                canvas_NL=users.canvas_NL,
                prompt_len_N=users.prompt_len_N,
                limit_N=users.limit_N,
                knobs=self._columns.view(f"knobs.{name}", slots_M),
                state=self._columns.cells(f"state.{name}", slots_M, own.offset_M),
                mask_token_id=blocks.mask_token_id,
                vocabulary=vocabulary,
            )
            logits_MV[used.index] = transform.apply(logits_MV[used.index], rows)

    def knob_floors(
        self, transforms_N: npt.NDArray[np.int64], slots_N: Tensor, total_step_N: Tensor
    ) -> Mapping[str, Tensor]:
        """Least values of decoder knobs, ``[N]`` each; -inf where nothing is asked for."""
        floors: dict[str, Tensor] = {}
        for name, transform, used_N in self._used(transforms_N):
            own_n = to_device(np.flatnonzero(used_N), slots_N.device)
            view = self._columns.view(f"knobs.{name}", slots_N[own_n])
            for knob, floor_n in transform.knob_floors(view, total_step_N[own_n]).items():
                whole_N = floors.setdefault(knob, torch.full(slots_N.shape, -torch.inf, device=slots_N.device))
                whole_N[own_n] = torch.maximum(whole_N[own_n], floor_n)
        return floors or EMPTY

    def mixture(
        self,
        logits_PV: Tensor,
        vocabulary: Vocabulary,
        transforms_P: npt.NDArray[np.int64],
        slots_P: Tensor,
        total_step_P: Tensor,
    ) -> Tensor:
        """Weights of the tokens whose embeddings are added at each position: the sum over its input transforms."""
        weights_PV = torch.zeros_like(logits_PV)
        for name, transform, used_P in self._used(transforms_P):
            if isinstance(transform, InputTransform):
                own_p = to_device(np.flatnonzero(used_P), slots_P.device)
                view = self._columns.view(f"knobs.{name}", slots_P[own_p])
                weights_PV[own_p] += transform.mixture(logits_PV[own_p], vocabulary, view, total_step_P[own_p])
        return weights_PV

    def _used(self, transforms_N: npt.NDArray[np.int64]) -> Iterator[tuple[str, Transform, npt.NDArray[np.bool_]]]:
        """The transforms that any row uses, and which rows do."""
        for number, (name, transform) in enumerate(self._transforms):
            used_N = (transforms_N >> number & 1).astype(np.bool_)
            if used_N.any():
                yield name, transform, used_N
