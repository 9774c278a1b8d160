"""The network of the published decoders' recordings: a function of the whole token array, without attention.

Shape legend: T tokens of a forward, D width of the function, M positions whose logits are wanted, V logit columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.attention.backend import AttentionBackend
from engine.build import assemble_core
from engine.config import EngineConfig, resolve_device
from engine.llm_engine import LLMEngine
from engine.models.spec import CheckpointTensor, DiffusionLM, ModelSpec
from engine.tokenizer import MissingTokenizer

MASK_PENALTY = 3.0
RAMP_START = 40
MAX_POSITIONS = 512


@dataclass(frozen=True, slots=True)
class ToyNetwork:
    """One setting of the function: ``scale`` sharpens its logits, ``eos_ramp`` raises the end of text with every
    position behind ``RAMP_START``."""

    scale: float
    eos_ramp: float
    mask_token_id: int
    eos_token_id: int

    def load_engine(self, path: Path, config: EngineConfig) -> LLMEngine:
        """An engine over the arrays in ``path`` (npz)."""
        with np.load(path, allow_pickle=False) as arrays:
            tables = [torch.from_numpy(arrays[name]).float() for name in ("E", "P", "W")]
        device = resolve_device(config)
        model = ToyModel(self, *tables).to(device)
        max_model_len = config.max_model_len or MAX_POSITIONS
        core = assemble_core(model, config, max_model_len)
        return LLMEngine(core, model.spec, MissingTokenizer(), config, max_model_len)


class ToyModel(DiffusionLM):
    """``x = E[id] + P[i]``, mixed with its neighbours and its mean over all positions (rolls wrap around).

    Every row of a forward must be a whole canvas (cache policy ``none``): nothing is read from K/V. Hidden states
    carry their position in one extra column, which the end-of-text ramp reads.
    """

    def __init__(self, network: ToyNetwork, tokens_VD: Tensor, positions_ID: Tensor, head_DV: Tensor) -> None:
        super().__init__()
        self._network = network
        self.tokens_VD = nn.Parameter(tokens_VD, requires_grad=False)
        self.positions_ID = nn.Parameter(positions_ID, requires_grad=False)
        self.head_DV = nn.Parameter(head_DV, requires_grad=False)
        vocab_size, width = tokens_VD.shape
        self.spec = ModelSpec(
            architecture="toy",
            attention="bidirectional",
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=width,
            num_layers=0,
            num_heads=1,
            num_kv_heads=1,
            head_dim=1,
            max_position_embeddings=len(positions_ID),
            rope_theta=1.0,
            rms_norm_eps=0.0,
            tie_word_embeddings=False,
            attention_bias=False,
            mask_token_id=network.mask_token_id,
            stop_token_ids=frozenset({network.eos_token_id}),
            block_length=32,
        )

    def embed(self, token_ids_T: Tensor) -> Tensor:
        return self.tokens_VD[token_ids_T]

    def forward(
        self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend, read_M: Tensor | None = None
    ) -> Tensor:
        row_T = attention.row_T
        assert row_T is not None
        inputs_TD = embeddings_TD + self.positions_ID[positions_T]
        lengths = torch.bincount(row_T).tolist()
        mixed_TD = torch.cat([_mix(row) for row in inputs_TD.split(lengths)])
        return torch.cat((torch.tanh(mixed_TD), positions_T[:, None].float()), dim=1)

    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        network = self._network
        logits_MV: Tensor = hidden_MD[:, :-1] @ self.head_DV * network.scale
        logits_MV[:, network.mask_token_id] -= MASK_PENALTY
        ramp_M = (hidden_MD[:, -1] - RAMP_START).clamp(min=0)
        logits_MV[:, network.eos_token_id] += network.eos_ramp * ramp_M
        return logits_MV

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        return iter(())


def _mix(inputs_LD: Tensor) -> Tensor:
    left, right = inputs_LD.roll(1, dims=0), inputs_LD.roll(-1, dims=0)
    return inputs_LD + 0.7 * left + 0.5 * right + 0.3 * inputs_LD.mean(dim=0)
