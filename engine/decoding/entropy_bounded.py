"""Entropy-bounded decoding in SDAR's form."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from pydantic import Field

from engine.decoding.decoder import Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import rank_positions
from engine.params import params


class EntropyBounded(Decoder):
    """Fill the positions of lowest entropy as long as their entropies together stay below gamma; at least one.

    This is the stricter count of the SDAR engines, #{cumulative sum < gamma}; the EB-sampler's paper leaves the last
    entropy out of the sum.
    """

    summary: ClassVar[str] = "Lowest entropies first, while their sum stays below gamma."
    source: ClassVar[str] = "EB-sampler (arXiv 2505.24857), as in SDAR's engines"
    needs_entropy: ClassVar[bool] = True

    @params
    class Params:
        gamma: Annotated[float, Gt(0), Field(description="Bound on the sum of entropies, in nats.")] = 0.35

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        ranks_NB = rank_positions(-candidates.entropy_NB, rows.masked_NB)
        sorted_NB = torch.zeros_like(candidates.entropy_NB).scatter_(1, ranks_NB, candidates.entropy_NB)
        within_NB = sorted_NB.cumsum(dim=1) < rows.knobs["gamma"][:, None]
        count_N = within_NB.sum(dim=1).clamp(min=1)
        return Selection((ranks_NB < count_N[:, None]) & rows.masked_NB, candidates.tokens_NB)
