"""What the modules of a network are given on typical rows: the basis for turning one network into another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor, nn

from engine.training.batches import ROW_LENGTHS, Batch, collate
from engine.training.data import SpecialIds, encoded_samples
from engine.training.noise import Blocks

K = TypeVar("K", bound=Hashable)

SAMPLES = 64
LENGTH = max(ROW_LENGTHS)


def typical_batch(tokenizer: Tokenizer) -> Batch:
    """Clean and noised tokens of a few training samples; always the same."""
    ids = SpecialIds.of(tokenizer)
    rng = np.random.default_rng(0)
    rows = [Blocks(4).row(sample, ids.mask, ids.end, rng) for sample in islice(encoded_samples(tokenizer, 0), SAMPLES)]
    return collate([row for row in rows if len(row) <= LENGTH], LENGTH, ids.end)


@contextmanager
def recorded_inputs(modules: Mapping[K, nn.Module]) -> Iterator[dict[K, Tensor]]:
    """First argument of each module in its next forward, filled in as the forwards go."""
    inputs: dict[K, Tensor] = {}

    def recorder(key: K) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[key] = arguments[0]

        return record

    handles = [module.register_forward_pre_hook(recorder(key)) for key, module in modules.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
