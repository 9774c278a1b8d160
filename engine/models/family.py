"""What the engine knows of a model family beside a checkpoint's own files."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from engine.cache.policy import AttentionPattern
from engine.models.json_fields import JsonFields
from engine.models.spec import DiffusionLM, MoESpec


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShape:
    """The numbers of a ``config.json`` that shape the network, under the engine's names.

    ``tie_word_embeddings`` is None where the file does not say. ``max_positions_field`` is the published name of
    ``max_position_embeddings``. ``rotary_dim`` and ``moe`` are ModelSpec's.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    max_positions_field: str
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool | None
    attention_bias: bool = False
    rotary_dim: int | None = None
    moe: MoESpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """One architecture.

    ``read_config`` turns its published fields into a NetworkShape and refuses options that the network lacks.
    ``block_length`` and ``mask_token_id`` are the family's habit where no file names them. ``head_tensor`` is the
    published name of the output head, absent from tied checkpoints; ``end_of_turn`` are tokens that end a chat answer
    although no file lists them. ``logit_shift`` is ModelSpec's. Tensors that contain a part of ``ignored_tensors`` may
    lie in the files unused.
    """

    name: str
    model: str
    read_config: Callable[[JsonFields], NetworkShape]
    attention: AttentionPattern
    block_length: int
    head_tensor: str
    mask_token_id: int | None = None
    logit_shift: int = 0
    end_of_turn: tuple[str, ...] = ()
    ignored_tensors: tuple[str, ...] = ("rotary_emb.inv_freq",)

    def model_class(self) -> type[DiffusionLM]:
        """Import the network: ``model`` is ``"module:Class"``."""
        module, _, attribute = self.model.partition(":")
        return cast("type[DiffusionLM]", getattr(importlib.import_module(module), attribute))
