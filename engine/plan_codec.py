"""Plans as bytes: how a plan travels from the leading rank to the others at every step.

    version u8 | bytes per integer u8 | integers u32 | floats u32 | booleans u32
    integers (int32 where all of them fit, else int64) | floats (float32) | booleans (u8) | skeleton (JSON)

The skeleton is the plan with each array replaced by its kind and length; the elements of the arrays lie end to end, in
the order in which the skeleton names them. Little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.cache.block_manager import KVCopy
from engine.plan import (
    Admission,
    DecodeSpans,
    Decoding,
    DriftProbe,
    IterationPlan,
    LengthProbes,
    Rows,
    SoftInputs,
    Splice,
)

VERSION = 2
_HEADER = struct.Struct("<BBIII")
_PARTS: tuple[type, ...] = (
    IterationPlan,
    Rows,
    DecodeSpans,
    LengthProbes,
    SoftInputs,
    Admission,
    Decoding,
    DriftProbe,
    Splice,
    KVCopy,
)
_NUMBERS = {part: number for number, part in enumerate(_PARTS)}
_FIELDS = {part: tuple(field.name for field in fields(part)) for part in _PARTS}
_KINDS = {np.dtype(np.int64): "i", np.dtype(np.float32): "f", np.dtype(np.bool_): "b"}
_INT32 = np.iinfo(np.int32)

Array = npt.NDArray[Any]


def encode_plan(plan: IterationPlan) -> bytes:
    """The plan as one message."""
    pools: dict[str, list[Array]] = {
        "i": [np.empty(0, np.int64)],
        "f": [np.empty(0, np.float32)],
        "b": [np.empty(0, np.bool_)],
    }
    skeleton = json.dumps(_take_apart(plan, pools), separators=(",", ":")).encode()
    ints, floats, bools = (np.concatenate(pools[kind]) for kind in "ifb")
    if not len(ints) or (_INT32.min <= ints.min() and ints.max() <= _INT32.max):
        ints = ints.astype(np.int32)
    header = _HEADER.pack(VERSION, ints.itemsize, len(ints), len(floats), len(bools))
    return b"".join((header, ints.tobytes(), floats.tobytes(), bools.tobytes(), skeleton))


def decode_plan(message: bytes | memoryview) -> IterationPlan:
    """The plan of a message, in memory of its own. ValueError when another version of the code has written it."""
    version, int_bytes, num_ints, num_floats, num_bools = _HEADER.unpack_from(message)
    if version != VERSION:
        raise ValueError(f"a plan of version {version} came, this rank reads {VERSION}: install one version everywhere")
    floats_at = _HEADER.size + int_bytes * num_ints
    bools_at = floats_at + 4 * num_floats
    skeleton_at = bools_at + num_bools
    pools = {
        "i": _Pool(np.frombuffer(message, f"<i{int_bytes}", num_ints, _HEADER.size).astype(np.int64)),
        "f": _Pool(np.frombuffer(message, "<f4", num_floats, floats_at).astype(np.float32)),
        "b": _Pool(np.frombuffer(message, np.bool_, num_bools, bools_at).copy()),
    }
    plan = _put_together(json.loads(bytes(message[skeleton_at:])), pools)
    assert isinstance(plan, IterationPlan)
    return plan


class _Pool:
    """Hands out the next elements of one kind."""

    def __init__(self, elements: Array) -> None:
        self._elements = elements
        self._next = 0

    def take(self, length: int) -> Array:
        start, self._next = self._next, self._next + length
        return self._elements[start : self._next]


def _take_apart(value: object, pools: Mapping[str, list[Array]]) -> object:
    """What JSON can hold: arrays, tuples, lists and mappings as tagged lists, the parts of a plan by their numbers."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        kind = _KINDS[value.dtype]
        assert value.ndim == 1, "plans hold vectors"
        pools[kind].append(value)
        return [kind, len(value)]
    if isinstance(value, (tuple, list)):
        return ["tuple" if isinstance(value, tuple) else "list", *(_take_apart(item, pools) for item in value)]
    if isinstance(value, Mapping):
        return ["map", *((name, _take_apart(item, pools)) for name, item in value.items())]
    part = type(value)
    return [_NUMBERS[part], *(_take_apart(getattr(value, name), pools) for name in _FIELDS[part])]


def _put_together(value: Any, pools: Mapping[str, _Pool]) -> object:
    """The inverse of :func:`_take_apart`."""
    if not isinstance(value, list):
        return value
    tag, *items = value
    if tag in pools:
        return pools[tag].take(items[0])
    if tag == "map":
        return {name: _put_together(item, pools) for name, item in items}
    parts = [_put_together(item, pools) for item in items]
    if tag == "tuple":
        return tuple(parts)
    if tag == "list":
        return parts
    part = _PARTS[tag]
    return part(**dict(zip(_FIELDS[part], parts, strict=True)))
