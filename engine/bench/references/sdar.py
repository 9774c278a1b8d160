"""SDAR's own loop, restated from its description (arXiv 2510.06303) and from what its published code does: one request
at a time, the prompt's whole blocks in a forward of their own, one more forward for every block that is finished.

The draw is the most probable token where the published one is random, which costs as much.

Shape legend: T positions of a block, V token ids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.bench.references.memory import Growing
from engine.bench.references.network import PublishedNetwork
from engine.bench.references.published_run import PublishedRun


@torch.inference_mode()
def generate(
    network: PublishedNetwork,
    prompt_P: Tensor,
    gen_length: int,
    block_length: int,
    threshold: float | None = None,
    steps: int | None = None,
    temperature: float = 1.0,
) -> PublishedRun:
    """Fill each block in so many ``steps`` (None: one for each position), the surest positions first; at each step also
    everything that is surer than ``threshold``, where there is so much."""
    steps = steps or block_length
    total = -(-(len(prompt_P) + gen_length) // block_length) * block_length
    canvas_1L = torch.full((1, total), network.spec.mask_token_id)
    canvas_1L[0, : len(prompt_P)] = prompt_P
    run, memory = PublishedRun(canvas_1L), Growing(block_length)
    known = len(prompt_P) // block_length * block_length
    if known:
        _store(network, canvas_1L[:, :known], 0, memory, run)
    quotas = [block_length // steps + (step < block_length % steps) for step in range(steps)]
    for start in range(known, total, block_length):
        block_1T = canvas_1L[:, start : start + block_length]
        for quota in quotas:
            open_T = block_1T[0] == network.spec.mask_token_id
            if not open_T.any():
                break
            logits_TV = network.forward(block_1T, start, memory)[0]
            run.count(block_1T)
            _fill(block_1T[0], open_T, logits_TV / temperature if temperature != 1.0 else logits_TV, threshold, quota)
        _store(network, block_1T, start, memory, run)
    return run


def _store(network: PublishedNetwork, tokens_1T: Tensor, start: int, memory: Growing, run: PublishedRun) -> None:
    """A forward that is taken for its keys and values alone."""
    memory.stores = True
    network.forward(tokens_1T, start, memory)
    memory.stores = False
    run.count(tokens_1T)


def _fill(tokens_T: Tensor, open_T: Tensor, logits_TV: Tensor, threshold: float | None, quota: int) -> None:
    """Write the drawn tokens of the chosen open positions, in place."""
    sure_T, drawn_T = logits_TV.softmax(dim=-1).max(dim=-1)
    sure_T = sure_T.masked_fill(~open_T, -torch.inf)
    chosen_T = torch.zeros_like(open_T)
    surer_T = sure_T > (torch.inf if threshold is None else threshold)
    if surer_T.sum() >= max(quota, 1):
        chosen_T = surer_T
    else:
        chosen_T[sure_T.topk(quota).indices] = True
    tokens_T.copy_(drawn_T.where(chosen_T & open_T, tokens_T))
