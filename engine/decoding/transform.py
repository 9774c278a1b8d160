"""The interface of transforms: changes to a model's outputs or inputs that combine with any decoder and cache policy.

Shape legend: N decoded blocks, B width of the widest, M open positions of these blocks whose logits are at hand, P
masked positions that the forward computes (inside the blocks and outside), V logit columns of this rank, K listed token
ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from engine.columns import CellView, ColumnSpec, knob_columns
from engine.decoding.vocabulary import Vocabulary


class Transform(ABC):
    """One file and one line in ``TRANSFORMS``. Stateless; made once per engine.

    ``Params`` is a frozen pydantic dataclass as of a decoder; its names are options of a strategy and unique among all
    transforms. With the defaults a transform is off: a request uses it by setting an option, and one that no request of
    a forward uses costs nothing. ``state`` declares what it remembers of a block, per slot; it is back at its fill
    whenever a block begins. (Widths are the same for all requests: no neighbour may change how much is remembered.)
    """

    Params: ClassVar[type]
    state: ClassVar[Mapping[str, ColumnSpec]] = MappingProxyType({})
    summary: ClassVar[str]
    source: ClassVar[str]

    @classmethod
    @abstractmethod
    def active(cls, params: Any) -> bool:
        """Whether these parameters (of its ``Params``) ask for anything."""

    @classmethod
    def knobs(cls) -> Mapping[str, ColumnSpec]:
        """Columns of what a request sets: one per option, and whatever else the engine knows of the request that the
        transform asks for by name (``stop_ids``, ``bias_ids``, ``biases``)."""
        return knob_columns(cls.Params)

    def knob_floors(self, knobs: Mapping[str, Tensor], total_step_N: Tensor) -> Mapping[str, Tensor]:
        """Least values ``[N]`` that knobs of the decoder have at this step of the request, by name; decoders that have
        no such knob are left alone."""
        return {}


@dataclass(frozen=True, slots=True)
class TransformRows:
    """Where the logits are: position m is place ``offset_M[m]`` of block ``block_M[m]``. A block's positions are
    adjacent and ascend; where logits are many, a call may hold only some of them.

    Block arrays are those of DecodeRows; ``canvas_NL`` is the whole canvas of each block's request (the mask id where
    nothing is decided, and behind its end), ``prompt_len_N`` the length of its prompt, ``limit_N`` where its completion
    ends. ``knobs`` are per position, ``[M]`` or ``[M, K]``; ``state`` reads and stores cells. ``vocabulary`` says which
    tokens the logits are of.
    """

    block_M: Tensor
    offset_M: Tensor
    tokens_NB: Tensor
    masked_NB: Tensor
    positions_NB: Tensor
    step_N: Tensor
    canvas_NL: Tensor
    prompt_len_N: Tensor
    limit_N: Tensor
    knobs: Mapping[str, Tensor]
    state: CellView
    mask_token_id: int
    vocabulary: Vocabulary

    @property
    def positions_M(self) -> Tensor:
        """Absolute positions."""
        return self.positions_NB[self.block_M, self.offset_M]

    @property
    def masked_M(self) -> Tensor:
        """Which of the positions are masks (the others are offered to a decoder that edits)."""
        return self.masked_NB[self.block_M, self.offset_M]

    @property
    def tokens_M(self) -> Tensor:
        """What stands there now."""
        return self.tokens_NB[self.block_M, self.offset_M]


class LogitsTransform(Transform):
    """Changes the logits before candidates are proposed. Transforms run in the order of ``TRANSFORMS``.

    A rank has the logits of some tokens only. Arithmetic that takes each logit by itself needs no thought of that;
    whatever looks for the best token, for a sum over all, or for tokens by their ids asks ``rows.vocabulary``, whose
    numbers are equal on all ranks. The contract tests compare one rank with several.
    """

    @abstractmethod
    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        """New float32 logits ``[M, V]`` of this rank's tokens; the argument may be changed in place."""


class InputTransform(Transform):
    """Changes what the network is fed at masked positions.

    After each forward it turns the logits of every masked position that was computed into a mixture of tokens; the
    mixture of their embeddings is added to the mask's own whenever the position is fed again, until it is computed
    anew. It lasts as long as the request.
    """

    @abstractmethod
    def mixture(
        self, logits_PV: Tensor, vocabulary: Vocabulary, knobs: Mapping[str, Tensor], total_step_P: Tensor
    ) -> Tensor:
        """Weights of this rank's tokens ``[P, V]``, float32, from the model's own logits (float32, may be changed in
        place; guided ones with guidance, no logits transform applied). ``knobs`` are per position, ``total_step_P`` is
        the denoising step of the request (0 first)."""
