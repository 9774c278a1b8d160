"""What a training takes before there is one: parameters, bytes per process under each stage of ZeRO.

P parameters (of which A in AdamW, the rest in Muon), W processes. Bytes per process, weights + gradients + optimiser:

* one process, or nothing divided: 4 P + 4 P + 8 A + 4 (P - A)
* ZeRO 1: 4 P + 4 P + 12 A / W: DeepSpeed keeps its own copy of the weights beside the two moments
* ZeRO 2: 4 P + 4 P / W + 12 A / W
* ZeRO 3: (4 P + 4 P + 12 A) / W
* with ``bfloat16`` weights and gradients take 2 bytes instead of 4 and the optimiser 12 at every stage (0: undivided).

Activations are what a forward of one micro-batch keeps for the backward pass: counted by running it with fake
tensors, which have shapes alone. Not counted: buffers of communication, what a single operation works with, the
rows that wait, torch itself (about 0.3 GiB).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from engine.attention.backend import AttentionBackend
from engine.attention.dense import DenseAttention
from engine.models.registry import model_family
from engine.models.spec import DiffusionLM, ModelSpec
from engine.training.batches import collate
from engine.training.job import Job
from engine.training.losses import weighted_cross_entropy
from engine.training.noise import Row
from engine.training.optim import muon_parameters
from engine.training.zero import ZeroSettings

MASKED_SHARE = 0.5
"""Of a row's noised tokens that carry loss, on average; those of a row that is half clean are a quarter of all."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one process."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


def footprint(job: Job, zero: ZeroSettings | None, processes: int, activations: int) -> Footprint:
    """Of one process; ``zero`` None: without DeepSpeed. The job's model may be on the meta device."""
    total = sum(parameter.numel() for parameter in job.model.parameters())
    is_muon = job.optimisation.kind == "muon" and zero is None  # DeepSpeed divides AdamW alone
    in_muon = sum(p.numel() for p in muon_parameters(job.model)) if is_muon else 0
    stage, width = (0, 4) if zero is None else (zero.stage, 2 if zero.bfloat16 else 4)
    optimiser = 12 * total if stage or width == 2 else 8 * (total - in_muon) + 4 * in_muon
    return Footprint(
        weights=width * total // (processes if stage == 3 else 1),
        gradients=width * total // (processes if stage >= 2 else 1),
        optimiser=optimiser // (processes if stage else 1),
        activations=activations,
    )


def activation_bytes(job: Job, *, held_bfloat16: bool, autocast: bool, fused_attention: bool) -> int:
    """Kept between forward and backward of a micro-batch of the longest rows.

    The network is held in bfloat16, or computes products in it (``autocast``). ``fused_attention`` is CUDA's, which
    keeps no scores; the written-out one of a CPU keeps them for every pair of tokens.
    """
    length = max(job.row_lengths)
    rows = max(1, job.tokens_per_step // length)
    spec = _without_experts(job.model.spec)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with _new_parameters_in(torch.bfloat16 if held_bfloat16 else torch.float32):
            model = model_family(spec.architecture).model_class()(spec)
        return saved_bytes(model, rows, length, autocast, fused_attention)


@contextmanager
def _new_parameters_in(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def saved_bytes(model: DiffusionLM, rows: int, length: int, autocast: bool, fused_attention: bool) -> int:
    """Bytes of the tensors that autograd keeps in a forward of ``rows`` of ``length`` tokens on the model's device,
    each storage once, parameters left out. Fake tensors are counted like real ones."""
    kept: dict[int, torch.UntypedStorage] = {}
    device = next(model.parameters()).device
    batch = collate([_row(length)] * rows, length, 0).to(device)
    attention = _FusedAttention(rows, length) if fused_attention else DenseAttention(rows, length, batch.mask_R1NN)
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            hidden_TD = model(model.embed(batch.tokens_RN.flatten()), batch.positions_RN.flatten(), attention)
            logits_MV = model.compute_logits(hidden_TD[batch.indices_M])
        loss = weighted_cross_entropy(logits_MV, batch.targets_M, batch.weights_M, batch.normaliser)
    kept_bytes = sum(storage.nbytes() for storage in kept.values())
    del loss  # what it keeps was counted while it lived: no storage's number is used twice
    return kept_bytes


class _FusedAttention(AttentionBackend):
    """Keeps what a fused kernel keeps: its inputs, its output and one number per query and head."""

    def __init__(self, rows: int, length: int) -> None:
        self._tokens = rows * length

    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        mixed: Tensor = _Fused.apply(queries_THD, keys_TKD, values_TKD)  # type: ignore[no-untyped-call]
        return mixed


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor
    ) -> Tensor:
        mixed_THD = torch.empty_like(queries_THD, dtype=values_TKD.dtype)
        log_sums_TH = torch.empty(queries_THD.shape[:2], device=queries_THD.device)
        ctx.save_for_backward(queries_THD, keys_TKD, values_TKD, mixed_THD, log_sums_TH)
        return mixed_THD


def _row(length: int) -> Row:
    """A row of one noised half and one clean one."""
    places = np.arange(length)
    loss = places < int(length / 2 * MASKED_SHARE)
    return Row(
        tokens=np.zeros(length, dtype=np.int64),
        positions=places,
        blocks=places % max(1, length // 2),
        noised=places < length // 2,
        targets=np.zeros(length, dtype=np.int64),
        weights=loss.astype(np.float32),
    )


def _without_experts(spec: ModelSpec) -> ModelSpec:
    """A dense network whose tokens pass the width that their experts have together: which expert a token goes to is not
    known on the meta device, and does not change how much is kept."""
    if spec.moe is None:
        return spec
    width = spec.moe.routing.experts_per_token * spec.moe.intermediate_size + spec.moe.shared_intermediate_size
    return replace(spec, moe=None, intermediate_size=max(width, 1))
