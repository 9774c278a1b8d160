"""What rank 0 tells the others: messages of bytes over a gloo group of their own, whatever the tensors' backend is."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist

LENGTH_BYTES = 8
INLINE_BYTES = 8192
"""Messages up to this length are one broadcast, longer ones two."""


class ControlChannel:
    """Owns the group. Every rank makes the matching call; RuntimeError when the others do not within the timeout, or
    when one of them is gone."""

    def __init__(self, timeout_s: float) -> None:
        """Form the group of all ranks of this process's world; every rank does it at the same point."""
        self._group = dist.new_group(timeout=timedelta(seconds=timeout_s), backend="gloo")
        self._first = torch.zeros(LENGTH_BYTES + INLINE_BYTES, dtype=torch.uint8)
        self._length = self._first[:LENGTH_BYTES].view(torch.int64)

    def send(self, message: bytes) -> None:
        """Rank 0's call."""
        whole = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        inline = whole[:INLINE_BYTES]
        self._length[0] = len(whole)
        self._first[LENGTH_BYTES : LENGTH_BYTES + len(inline)] = inline
        dist.broadcast(self._first, src=0, group=self._group)
        if len(whole) > INLINE_BYTES:
            dist.broadcast(whole[INLINE_BYTES:], src=0, group=self._group)

    def receive(self) -> memoryview:
        """The other ranks' call."""
        dist.broadcast(self._first, src=0, group=self._group)
        whole = torch.empty(int(self._length[0]), dtype=torch.uint8)
        inline = whole[:INLINE_BYTES]
        inline.copy_(self._first[LENGTH_BYTES : LENGTH_BYTES + len(inline)])
        if len(whole) > INLINE_BYTES:
            dist.broadcast(whole[INLINE_BYTES:], src=0, group=self._group)
        return whole.numpy().data

    def meet(self) -> None:
        """Return when every rank has made this call."""
        dist.all_reduce(torch.zeros(1), group=self._group)
