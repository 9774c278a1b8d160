"""Fast-dLLM's loop with both caches for LLaDA, restated from its description (arXiv 2505.22618, section 3.2) and from
what its published code does: rows go in lock step, and every forward takes the softmax of the whole vocabulary in
float64 at every position it was fed.

Shape legend: B rows, L positions of a canvas, T of a forward, V token ids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.bench.references.memory import Rewritten
from engine.bench.references.network import PublishedNetwork
from engine.bench.references.published_run import PublishedRun


@torch.inference_mode()
def generate(
    network: PublishedNetwork,
    prompts_BP: Tensor,
    gen_length: int,
    block_length: int,
    threshold: float | None = None,
    steps: int | None = None,
) -> PublishedRun:
    """Fill each block with everything that is at least as sure as ``threshold``, or evenly in so many ``steps`` a block
    (None: one for each position). A block has no more forwards than steps, its first one included."""
    steps = steps or block_length
    mask = network.spec.mask_token_id
    canvas_BL = torch.cat((prompts_BP, prompts_BP.new_full((len(prompts_BP), gen_length), mask)), dim=1)
    run = PublishedRun(canvas_BL)
    for start in range(prompts_BP.shape[1], canvas_BL.shape[1], block_length):
        end = start + block_length
        memory = Rewritten()
        open_BL = canvas_BL == mask
        quotas_BS = _quotas(open_BL[:, start:end].sum(dim=1), steps)
        open_BL[:, end:] = False
        _fill(canvas_BL, open_BL, network.forward(canvas_BL, 0, memory), threshold, quotas_BS[:, 0])
        run.count(canvas_BL)
        block_BT = canvas_BL[:, start:end]
        for step in range(1, steps):
            open_BT = block_BT == mask
            if not open_BT.any():
                break
            _fill(block_BT, open_BT, network.forward(block_BT, start, memory), threshold, quotas_BS[:, step])
            run.count(block_BT)
    return run


def _quotas(open_B: Tensor, steps: int) -> Tensor:
    """How many positions each step fills ``[B, steps]``: evenly, the larger shares first."""
    return open_B[:, None] // steps + (torch.arange(steps) < open_B[:, None] % steps)


def _fill(tokens_BT: Tensor, open_BT: Tensor, logits_BTV: Tensor, threshold: float | None, quota_B: Tensor) -> None:
    """Write the most probable tokens of the chosen open positions, in place."""
    best_BT = logits_BTV.argmax(dim=-1)
    sure_BT = logits_BTV.double().softmax(dim=-1).gather(-1, best_BT[..., None]).squeeze(-1)
    sure_BT = sure_BT.masked_fill(~open_BT, -torch.inf)
    order_BT = sure_BT.argsort(dim=1, descending=True, stable=True)
    rank_BT = order_BT.argsort(dim=1)
    chosen_BT = rank_BT < quota_B[:, None] if threshold is None else (sure_BT >= threshold) | (rank_BT == 0)
    tokens_BT.copy_(best_BT.where(chosen_BT & open_BT, tokens_BT))
