"""What a checkpoint is, resolved to plain numbers, and the interface of every model.

Shape legend: T tokens of a forward, D hidden size, M positions whose logits are wanted, V logit columns of
this rank.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.attention.backend import AttentionBackend
from engine.cache.policy import AttentionPattern
from engine.decoding.vocabulary import Best, Vocabulary
from engine.layers.routing import RoutingRule
from engine.parallel import ALONE, Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class MoESpec:
    """The feed-forward part of a mixture-of-experts model.

    ``intermediate_size`` is one expert's width, ``shared_intermediate_size`` that of all shared experts together.
    ``dense_layers`` have an ordinary feed-forward network of the ModelSpec's ``intermediate_size`` instead.
    """

    num_experts: int
    intermediate_size: int
    routing: RoutingRule
    expert_bias: bool = False
    shared_intermediate_size: int = 0
    dense_layers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything the engine needs to know about a checkpoint.

    ``vocab_size`` counts the columns of the logits (LLaDA: ``embedding_size``), which may exceed the tokenizer's.
    ``attention`` tells the two families apart; ``block_length`` is the default diffusion block (for block-causal
    models the length they were trained for). ``stop_token_ids`` end a completion. With ``logit_shift`` 1 the logits at
    position i - 1 predict token i (Dream keeps this habit of its autoregressive ancestor); the canvas is never shifted.
    ``rotary_dim`` dimensions of each head are rotated (None: all). ``moe`` is None for dense networks.
    ``preset_family`` says which named strategies suit the checkpoint; empty: none.
    """

    architecture: str
    attention: AttentionPattern
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    attention_bias: bool
    mask_token_id: int
    stop_token_ids: frozenset[int]
    block_length: int
    logit_shift: int = 0
    rotary_dim: int | None = None
    moe: MoESpec | None = None
    preset_family: str = ""


class CheckpointTensor(NamedTuple):
    """Where one tensor of a published checkpoint belongs in the whole network, whatever part of it a rank has.

    ``name`` is its published name; ``parameter`` the model's parameter; rows ``[start, end)`` of that parameter's
    first dimension hold it (packed projections take several tensors), all rows when ``end`` is None. Where experts are
    stacked, ``expert`` picks one first and the rows are its own.
    """

    name: str
    parameter: str
    start: int = 0
    end: int | None = None
    expert: int | None = None

    def view(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The part of the named parameters that holds the tensor, sharing their storage. The parameters are whole."""
        whole = parameters[self.parameter]
        return (whole if self.expert is None else whole[self.expert])[self.start : self.end]


class DiffusionLM(nn.Module):
    """A network of one family. Stateless between forwards: K/V belong to the attention backend."""

    spec: ModelSpec
    ranks: Ranks = ALONE

    @property
    def num_kv_heads(self) -> int:
        """Key/value heads that this rank computes and keeps."""
        return self.spec.num_kv_heads

    @property
    def vocabulary(self) -> Vocabulary:
        """Which tokens the logits of this rank are of."""
        return Vocabulary(self.spec.vocab_size)

    @abstractmethod
    def embed(self, token_ids_T: Tensor) -> Tensor:
        """Token embeddings ``[T, D]``."""

    @abstractmethod
    def forward(
        self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend, read_M: Tensor | None = None
    ) -> Tensor:
        """Hidden states ``[T, D]`` after the final norm; ``positions_T`` are absolute positions for the rotary
        embedding. Nobody looks at other tokens' than those of ``read_M``, one at least (None: all): theirs may be
        anything."""

    @abstractmethod
    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        """Logits ``[M, V]`` of the given hidden states only, for the tokens of ``vocabulary`` that this rank has."""

    def best(self, hidden_MD: Tensor, without: int) -> Best:
        """The most probable token of each hidden state but ``without``, when nobody asks for the logits."""
        return self.vocabulary.best(self.compute_logits(hidden_MD).float(), without)

    def mix(self, weights_MV: Tensor) -> Tensor:
        """Sums ``[M, D]`` of token embeddings under the given weights of this rank's tokens and those of all others, in
        the embeddings' dtype. (Networks that divide their vocabulary bring their own.)"""
        table_VD = self.embed(torch.arange(weights_MV.shape[1], device=weights_MV.device))
        return weights_MV.to(table_VD.dtype) @ table_VD

    @abstractmethod
    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        """Every tensor of the published layout and where it goes, for loading and for saving."""

    def fused_tensors(self) -> Iterator[CheckpointTensor]:
        """Other names and shapes that converted checkpoints use. A stored one replaces all tensors of
        :meth:`checkpoint_tensors` that go to its parameter."""
        return iter(())
