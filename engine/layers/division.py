"""How a layer says which part of its parameters a rank holds.

A module lists its divided parameters in an attribute ``divisions``, by name; parameters that are not listed are whole
on every rank. Loading needs nothing else: model families name tensors and places of the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from engine.errors import ConfigError
from engine.parallel import Part

Span = tuple[int, int]
"""A half-open range."""


@dataclass(frozen=True, slots=True)
class Division:
    """Of dimension ``dim``, ``total`` long in the whole parameter, a rank holds the ``spans``, laid end to end."""

    dim: int
    total: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """What a rank holds of one parameter: the size of each whole dimension, and the spans of it that are here."""

    sizes: tuple[int, ...]
    spans: tuple[tuple[Span, ...], ...]

    @property
    def is_whole(self) -> bool:
        return all(spans == ((0, size),) for size, spans in zip(self.sizes, self.spans, strict=True))


def held_parameters(model: nn.Module) -> Mapping[str, Held]:
    """What this rank holds of each parameter, by the parameter's full name."""
    held: dict[str, Held] = {}
    for prefix, module in model.named_modules():
        divisions = getattr(module, "divisions", {})
        for name, parameter in module.named_parameters(recurse=False):
            held[f"{prefix}.{name}".lstrip(".")] = _held(parameter, divisions.get(name, ()))
    return held


def head_parts(tensor: Part, num_heads: int, num_kv_heads: int) -> tuple[Part, Part]:
    """Which query heads and which key/value heads belong to a tensor rank.

    Each rank has whole groups of queries with their key head. With fewer key heads than ranks, adjacent ranks hold the
    same one. ConfigError where that does not come out even.
    """
    if num_heads % tensor.count or max(tensor.count, num_kv_heads) % min(tensor.count, num_kv_heads):
        raise ConfigError(
            f"tensor_parallel_size {tensor.count} does not divide {num_heads} attention heads on {num_kv_heads} "
            f"key/value heads; possible are {', '.join(map(str, _possible(num_heads, num_kv_heads)))}",
            "tensor_parallel_size",
        )
    kv_count = min(tensor.count, num_kv_heads)
    return tensor, Part(tensor.index * kv_count // tensor.count, kv_count)


def _held(parameter: nn.Parameter, divisions: Sequence[Division]) -> Held:
    sizes = list(parameter.shape)
    spans: list[tuple[Span, ...]] = [((0, size),) for size in sizes]
    for division in divisions:
        here = sum(end - start for start, end in division.spans)
        assert here == sizes[division.dim], f"{division} does not describe a parameter of shape {sizes}"
        sizes[division.dim], spans[division.dim] = division.total, _merged(division.spans)
    return Held(tuple(sizes), tuple(spans))


def _possible(num_heads: int, num_kv_heads: int) -> list[int]:
    counts = range(1, num_heads + 1)
    return [n for n in counts if not num_heads % n and not max(n, num_kv_heads) % min(n, num_kv_heads)]


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The same ranges with neighbours joined and empty ones left out."""
    result: list[Span] = []
    for start, end in spans:
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        elif start < end:
            result.append((start, end))
    return tuple(result)
