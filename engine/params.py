"""How a ``Params`` dataclass of a decoder or cache policy is declared.

    @params
    class Params:
        threshold: Annotated[float, Ge(0), Le(1), Field(description="Fill what is at least this confident.")] = 0.9

Fields are numbers with a default, a bound and a description.
"""

from __future__ import annotations

from typing import TypeVar, cast, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

T = TypeVar("T")

MAX_STEPS = 65_536
"""Most denoising steps that may be asked for per block."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def params(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, validated dataclass that refuses unknown fields."""
    return cast("type[T]", dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))(cls))


@params
class NoParams:
    """For rules without knobs."""
