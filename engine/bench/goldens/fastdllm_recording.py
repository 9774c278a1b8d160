"""The files of a fastdllm folder, and what the engine is asked in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from engine.sampling_params import SamplingParams

Draws = tuple[tuple[float, ...], ...]
"""Uniform numbers by step and generated position."""

P = TypeVar("P", bound="AnyParams")


class AnyParams(BaseModel):
    """Arguments of a recorded call of any function."""

    model_config = ConfigDict(extra="allow")

    mask_id: int


class Expected(BaseModel):
    output_ids: list[list[int]]
    nfe: int
    decode_forward: list[list[int]]


class Recording(BaseModel):
    """One file."""

    id: str
    checkpoint: str
    function: str
    params: AnyParams
    prompt_ids: Annotated[list[list[int]], Field(min_length=1)]
    attention_mask: list[list[int]] | None
    torch_seed: int | None
    rand_draws: list[list[float]] | None = None
    optional: bool
    quirk: str | None
    expected: Expected

    def params_as(self, params: type[P]) -> P:
        """The arguments as those of one function; ValueError for what it does not know."""
        return params.model_validate(self.params.model_dump())


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A recorded call in the engine's terms: ``options`` are the strategy as a client would write it, with
    ``parity_options`` added in parity mode; ``draws`` are the recorded random numbers of each row, if they matter."""

    gen_length: int
    block_length: int
    sampling: SamplingParams
    options: Mapping[str, object]
    parity_options: Mapping[str, object] = field(default_factory=dict)
    draws: Sequence[Draws] | None = None
