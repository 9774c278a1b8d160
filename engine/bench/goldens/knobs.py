"""Turning recorded arguments into the knobs of the engine's decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from engine.bench.goldens.results import NotSupportedError
from engine.decoding import DECODERS


def engine_terms(recorded: str, params: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """The engine's name of one of dInfer's decoders and the value of each argument: the fixed schedule is called by how
    it ranks, the hierarchy switches a rule off by None."""
    if recorded == "fixed":
        return str(params["remasking"]), dict(params)
    if recorded == "hierarchy":
        never = {"threshold": 1.0, "low_threshold": 0.0}
        return "hierarchical", {name: never.get(name) if value is None else value for name, value in params.items()}
    return recorded, dict(params)


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
