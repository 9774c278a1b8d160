"""Turning recorded arguments into the knobs of the engine's decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from engine.bench.goldens.results import NotSupportedError
from engine.decoding import DECODERS


def decoder_knobs(
    decoder: str, arguments: Mapping[str, object], ignored: frozenset[str] = frozenset()
) -> dict[str, object]:
    """The arguments that ``decoder`` knows. One that it does not know is refused unless it is in ``ignored``, and so is
    a decoder that does not exist."""
    if decoder not in DECODERS:
        raise NotSupportedError(f"decoder {decoder}")
    known = {field.name for field in dataclasses.fields(DECODERS.get(decoder).Params)}
    unknown = arguments.keys() - known - ignored
    if unknown:
        raise NotSupportedError(f"decoder {decoder} has no {', '.join(sorted(unknown))}")
    return {name: value for name, value in arguments.items() if name in known}
