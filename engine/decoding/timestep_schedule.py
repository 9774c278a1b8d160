"""Dream's schedules: how many tokens a step fills follows from noise levels that fall evenly from 1 to eps."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field
from torch import Tensor

from engine.decoding.decoder import Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import top_k
from engine.params import MAX_STEPS, params
from engine.randomness import gumbel, uniform

_SOURCE = "Dream (arXiv 2508.15487), generation_utils.py"

Steps = Annotated[int, Ge(0), Le(MAX_STEPS), Field(description="Denoising steps per block; 0 is one per token.")]
Epsilon = Annotated[float, Gt(0), Lt(1), Field(description="Noise level of the last step.")]
RunAllSteps = Annotated[bool, Field(description="Run steps that have nothing to fill, as the published code does.")]


@params
class TimestepParams:
    steps: Steps = 0
    eps: Epsilon = 1e-3
    alg_temp: Annotated[float, Ge(0), Field(description="Randomness of the order; 0 takes the best positions.")] = 0.0
    run_all_steps: RunAllSteps = False


def num_steps(rows: DecodeRows) -> Tensor:
    """Steps of each block, ``[N]``."""
    return torch.where(rows.knobs["steps"] > 0, rows.knobs["steps"], rows.width_N)


def due_share(rows: DecodeRows) -> Tensor:
    """Share ``[N]`` of the masks that is due at this step: 1 - s / t for noise levels t > s; all at the last step.

    Levels are those of ``linspace(1, eps, steps + 1)`` in float32, in the same order of operations.
    """
    steps_N = num_steps(rows)
    eps_N = rows.knobs["eps"]
    now_N, next_N = (_level(rows.step_N + ahead, steps_N, eps_N) for ahead in (0, 1))
    return torch.where(rows.step_N >= steps_N - 1, 1.0, 1 - next_N / now_N)


def _level(index_N: Tensor, steps_N: Tensor, eps_N: Tensor) -> Tensor:
    increment_N = (eps_N - 1) / steps_N
    from_start_N = 1 + increment_N * index_N
    return torch.where(index_N < (steps_N + 1) // 2, from_start_N, eps_N - increment_N * (steps_N - index_N))


def _finish(rows: DecodeRows, candidates: Candidates, transfer_NB: Tensor) -> Selection:
    """With ``run_all_steps``, steps before the last may fill nothing and the block lasts all its steps."""
    all_steps_N = rows.knobs["run_all_steps"].bool()
    last_N = rows.step_N >= num_steps(rows) - 1
    return Selection(transfer_NB, candidates.tokens_NB, done_N=~all_steps_N | last_N, idle_N=all_steps_N & ~last_N)


class _Ranked(Decoder):
    """Fill the due number of positions, best score first; with ``alg_temp`` they are drawn without replacement from
    softmax(score / alg_temp)."""

    Params = TimestepParams
    source: ClassVar[str] = _SOURCE

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        count_N = (rows.masked_NB.sum(dim=1).float() * due_share(rows)).long()
        scores_NB = self.scores(candidates).masked_fill(~rows.masked_NB, 0.0)
        heat_N1 = rows.knobs["alg_temp"][:, None]
        noise_NB = gumbel(rows.seed_N[:, None], rows.step_N[:, None], rows.positions_NB)
        drawn_NB = scores_NB / heat_N1.clamp(min=1e-6) + noise_NB
        order_NB = torch.where(heat_N1 > 0, drawn_NB, scores_NB)
        return _finish(rows, candidates, top_k(order_NB, rows.masked_NB, count_N))

    @abstractmethod
    def scores(self, candidates: Candidates) -> Tensor:
        """What positions are ranked by, ``[N, B]``."""


class MaskGitPlus(_Ranked):
    """Rank by the probability of the proposed token."""

    summary: ClassVar[str] = "Dream's schedule, most probable tokens first."

    def scores(self, candidates: Candidates) -> Tensor:
        return candidates.confidence_NB


class TopKMargin(_Ranked):
    """Rank by how far the best token is ahead of the second."""

    summary: ClassVar[str] = "Dream's schedule, largest margin between the two best tokens first."
    needs_margin: ClassVar[bool] = True

    def scores(self, candidates: Candidates) -> Tensor:
        return candidates.margin_NB


class Entropy(_Ranked):
    """Rank by entropy, the lowest first."""

    summary: ClassVar[str] = "Dream's schedule, lowest entropy first."
    needs_entropy: ClassVar[bool] = True

    def scores(self, candidates: Candidates) -> Tensor:
        return -candidates.entropy_NB


class Origin(Decoder):
    """Fill each position independently with the due probability: the reverse process of the training noise."""

    summary: ClassVar[str] = "Dream's original rule: positions fall out of the mask independently at random."
    source: ClassVar[str] = _SOURCE

    @params
    class Params:
        steps: Steps = 0
        eps: Epsilon = 1e-3
        run_all_steps: RunAllSteps = False

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        return _finish(rows, candidates, rows.masked_NB & (self.draws(rows) < due_share(rows)[:, None]))

    def draws(self, rows: DecodeRows) -> Tensor:
        """Uniform numbers in (0, 1), ``[N, B]``."""
        return uniform(rows.seed_N[:, None], rows.step_N[:, None], rows.positions_NB)
