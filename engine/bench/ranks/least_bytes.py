"""How many bytes the ranks of a layout have to send each other for one forward, whoever computes it.

Shape legend: T positions of a forward, M positions that the output head decides, D hidden size, G ranks of a group,
W ranks in all.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.models.spec import ModelSpec
from engine.parallel import ParallelLayout

NUMBERS_PER_POSITION = 3
"""What a rank says of a position: its best token, the logit of it, and the logarithm of its sum of exp(logits)."""
NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class LeastBytes:
    """Sent by all ranks together: sums of hidden states, what the vocabulary's parts say, and the plan."""

    layers: int
    vocabulary: int
    plan: int

    @property
    def total(self) -> int:
        return self.layers + self.vocabulary + self.plan


def least_bytes(
    spec: ModelSpec, layout: ParallelLayout, itemsize: int, positions: int, decided: int, plan_bytes: int
) -> LeastBytes:
    """For ``positions`` (T, added up over forwards), ``decided`` (M) and plans of ``plan_bytes`` in all.

    A sum over G ranks that all of them need takes 2 (G - 1) / G of the tensor from each rank, which a ring reaches
    (Patarasuk and Yuan 2009): one for the embeddings, one for the heads of each layer and one for its feed-forward
    network. Everybody's numbers for everybody take G - 1 times a rank's own. Each rank but the first needs the plan.
    """
    tensor, world = layout.tensor, layout.world_size
    hidden_bytes = positions * spec.hidden_size * itemsize
    sparse = 0 if spec.moe is None else spec.num_layers - len(spec.moe.dense_layers)
    tensor_sums = 1 + 2 * spec.num_layers - sparse
    groups = world // tensor
    numbers = decided * NUMBERS_PER_POSITION * NUMBER_BYTES
    return LeastBytes(
        layers=tensor_sums * groups * _sum_bytes(tensor, hidden_bytes) + sparse * _sum_bytes(world, hidden_bytes),
        vocabulary=groups * tensor * (tensor - 1) * numbers,
        plan=(world - 1) * plan_bytes,
    )


def _sum_bytes(ranks: int, tensor_bytes: int) -> int:
    """Of all ranks together."""
    return 2 * (ranks - 1) * tensor_bytes
