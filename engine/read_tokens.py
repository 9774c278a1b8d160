"""The tokens of a forward whose last hidden state somebody looks at: the last layer makes the outputs of those alone.

Of a prompt that is prefilled nobody reads any, of a canvas that is refreshed the open positions of the decided block.

Shape legend: R rows, T tokens, N decoded blocks, M tokens that are read.
"""

from __future__ import annotations

import numpy as np

from engine.cache.policy import BoolArray, IntArray
from engine.device_spans import wanted_places
from engine.plan import IterationPlan

LEAST_SPARED = 32
"""With fewer tokens to spare, picking the others costs about what it saves."""


def read_tokens(plan: IterationPlan, looks_ahead_N: BoolArray, logit_shift: int) -> IntArray | None:
    """Indices among the forward's tokens in order, of one token at least: no layer has to know how to compute none.
    None: all, or nearly.

    All tokens of a sequence are read that measures its length or whose inputs are mixtures, and (``looks_ahead_N``)
    where a decoder wants to know of the block behind the decided one.
    """
    rows, decoded = plan.rows, plan.decoded
    length_R = rows.q_end_R - rows.q_start_R
    block_M, offset_M = wanted_places(plan)
    spared = int(length_R.sum()) - len(block_M)
    if spared < LEAST_SPARED:
        return None
    whole_N = looks_ahead_N.copy()
    for reader in (plan.soft, decoded.probes):
        if reader is not None:
            whole_N[reader.block_P] = True
    whole_slots = np.concatenate((decoded.slot_N[whole_N], decoded.guide_slot_N[whole_N]))
    read_T = np.repeat(np.isin(rows.slot_R, whole_slots), length_R)
    offset_M = offset_M - logit_shift
    read_T[decoded.first_token_N[block_M] + offset_M] = True
    guide_M = decoded.guide_token_N[block_M]
    read_T[(guide_M + offset_M)[guide_M >= 0]] = True
    read_T[0] |= not read_T.any()
    read_M = np.flatnonzero(read_T)
    return read_M if len(read_T) - len(read_M) >= LEAST_SPARED else None
