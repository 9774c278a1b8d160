"""Factor decoding: the threshold falls with the number of tokens filled together."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from pydantic import Field

from engine.decoding.decoder import Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import rank_positions
from engine.params import params


class Factor(Decoder):
    """Fill the n most confident positions, n found greedily: the j-th needs confidence >= 1 - factor / (j + 1).

    The first is always filled. With factor 1 this is the bound of Fast-dLLM's theorem 1, under which greedy parallel
    decoding equals greedy sequential decoding. ``reference_tail`` repeats a habit of the published code: when only the
    least confident masked position fails, it is filled all the same.
    """

    summary: ClassVar[str] = "Fill the n most confident positions, each needing 1 - factor/(j+1)."
    source: ClassVar[str] = "Fast-dLLM (arXiv 2505.22618), theorem 1 and appendix"

    @params
    class Params:
        factor: Annotated[float, Gt(0), Field(description="Larger fills more at a time; 1 is the theorem.")] = 1.0
        reference_tail: Annotated[bool, Field(description="Also fill a lone last position, as the published code.")] = (
            False
        )

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        ranks_NB = rank_positions(candidates.confidence_NB, rows.masked_NB)
        needed_NB = 1 - rows.knobs["factor"][:, None] / (ranks_NB + 2)
        fails_NB = (candidates.confidence_NB < needed_NB) & rows.masked_NB & (ranks_NB > 0)
        num_masked_N = rows.masked_NB.sum(dim=1)
        first_failure_N = torch.where(fails_NB, ranks_NB, num_masked_N[:, None]).amin(dim=1)
        lone_tail_N = rows.knobs["reference_tail"].bool() & (first_failure_N == num_masked_N - 1)
        count_N = torch.where(lone_tail_N, num_masked_N, first_failure_N)
        return Selection((ranks_NB < count_N[:, None]) & rows.masked_NB, candidates.tokens_NB)
