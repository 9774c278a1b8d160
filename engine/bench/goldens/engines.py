"""Making an engine for recordings: with their random numbers where they brought any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from engine.build import build_core
from engine.config import EngineConfig, resolve_max_model_len
from engine.decoding import DECODERS
from engine.decoding.decoder import Decoder, DecodeRows
from engine.decoding.timestep_schedule import Origin
from engine.llm_engine import LLMEngine
from engine.models.checkpoint import open_checkpoint
from engine.registry import Registry
from engine.tokenizer import load_tokenizer


@dataclass(frozen=True, slots=True)
class RecordedDraws:
    """Uniform numbers of one request: ``numbers`` [steps, generated positions]; its generation begins at ``start``."""

    start: int
    numbers: Tensor


class RecordedOrigin(Origin):
    """Dream's random rule with recorded numbers, found by the request's seed."""

    recorded: ClassVar[Mapping[int, RecordedDraws]]

    def draws(self, rows: DecodeRows) -> Tensor:
        drawn_NB = torch.ones(rows.positions_NB.shape)
        for index, (seed, step) in enumerate(zip(rows.seed_N.tolist(), rows.step_N.tolist(), strict=True)):
            own = self.recorded[seed]
            places_B = (rows.positions_NB[index].cpu() - own.start).clamp(0, own.numbers.shape[1] - 1)
            drawn_NB[index] = own.numbers[step, places_B]
        return drawn_NB.to(rows.positions_NB.device)


class RecordedDecoders(Registry[Decoder]):
    """The engine's decoders, the random one with recorded numbers (by seed)."""

    def __init__(self, recorded: Mapping[int, RecordedDraws]) -> None:
        super().__init__(DECODERS.kind, {})
        self._origin = type("RecordedOrigin", (RecordedOrigin,), {"recorded": recorded})

    def get(self, name: str) -> type[Decoder]:
        return self._origin if DECODERS.get(name) is Origin else DECODERS.get(name)


def load_engine(path: Path, config: EngineConfig, draws: Mapping[int, RecordedDraws]) -> LLMEngine:
    """``LLMEngine.from_pretrained`` with recorded draws by seed."""
    if not draws:
        return LLMEngine.from_pretrained(path, config)
    checkpoint = open_checkpoint(path, config)
    max_model_len = resolve_max_model_len(config, checkpoint.spec.max_position_embeddings)
    core = build_core(checkpoint, config, max_model_len, decoders=RecordedDecoders(draws))
    return LLMEngine(core, checkpoint.spec, load_tokenizer(path, set()), config, max_model_len)
