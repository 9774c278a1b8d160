"""Start a LLaDA-MoE network from a trained dense network that is as wide and as deep.

Attention, norms, embedding and head carry over as they are. The neurons of each feed-forward network are divided among
the experts so that those that fire on the same tokens are together, and the router is fitted to choose the experts that
contribute most (Zhang et al., "MoEfication", arXiv 2110.01786). Routing weights are near 1 / E to begin with, so
``down_proj`` is multiplied by E, and the network begins close to the dense one.

Shape legend: T tokens, D hidden size, F neurons of a dense layer, E experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from engine.errors import ConfigError
from engine.layers.mlp import SwiGLU
from engine.layers.moe import SparseMoE
from engine.models.llada_moe import LLaDAMoEModel
from engine.models.sdar import SDARModel
from engine.models.transformer import TransformerLayer
from engine.training.network import hidden_states
from engine.training.recording import recorded_inputs, typical_batch

LOGIT_SPREAD = 0.1
"""Standard deviation of the router's logits: enough to order the experts, little enough to weigh them alike."""
ROUNDS = 20


@torch.no_grad()
def split_into_experts(source: SDARModel, target: LLaDAMoEModel, tokenizer: Tokenizer) -> None:
    """Fill ``target`` from ``source``. ConfigError when the experts cannot hold all neurons."""
    _check_widths(source, target)
    parameters = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name in parameters:
            parameter.copy_(parameters[name])
    batch = typical_batch(tokenizer)
    dense = {index: layer.mlp for index, layer in enumerate(source.layers) if isinstance(layer, TransformerLayer)}
    with recorded_inputs(dense) as inputs:
        hidden_states(source, batch.tokens_RN, batch.positions_RN, batch.mask_R1NN)
    generator = torch.Generator().manual_seed(0)
    for index, layer in enumerate(target.layers):
        assert isinstance(layer, TransformerLayer)
        mlp = dense[index]
        assert isinstance(mlp, SwiGLU)
        assert isinstance(layer.mlp, SparseMoE)
        _split_layer(mlp, layer.mlp, inputs[index][batch.real_T], generator)


def _check_widths(source: SDARModel, target: LLaDAMoEModel) -> None:
    moe = target.spec.moe
    assert moe is not None
    neurons, room = source.spec.intermediate_size, moe.num_experts * moe.intermediate_size
    if neurons > room:
        least = -(-neurons // moe.num_experts)
        message = (
            f"{moe.num_experts} experts of width {moe.intermediate_size} cannot hold a feed-forward network of width "
            f"{neurons}: they would have to be {least} wide."
        )
        raise ConfigError(message, "initial")


class Neurons(NamedTuple):
    """A dense feed-forward network: ``gate_FD`` and ``up_FD`` in, ``down_DF`` out."""

    gate_FD: Tensor
    up_FD: Tensor
    down_DF: Tensor

    def activations(self, x_TD: Tensor) -> Tensor:
        """``[T, F]``"""
        return functional.silu(x_TD @ self.gate_FD.T) * (x_TD @ self.up_FD.T)


def _split_layer(source: SwiGLU, target: SparseMoE, x_TD: Tensor, generator: torch.Generator) -> None:
    gate_FD, up_FD = source.gate_up_proj.weight.chunk(2)
    neurons = Neurons(gate_FD, up_FD, source.down_proj.weight)
    active_TF = neurons.activations(x_TD)
    num_experts = target.experts.num_experts
    expert_F = group_neurons(active_TF * neurons.down_DF.norm(dim=0), num_experts, generator)
    contribution_TE = torch.empty(len(x_TD), num_experts)
    for expert in range(num_experts):
        members = (expert_F == expert).nonzero()[:, 0]
        contribution_TE[:, expert] = (active_TF[:, members] @ neurons.down_DF[:, members].T).norm(dim=1)
        _fill_expert(target, expert, Neurons(gate_FD[members], up_FD[members], neurons.down_DF[:, members]), generator)
    target.gate.weight.copy_(fit_router(x_TD, contribution_TE))


def _fill_expert(target: SparseMoE, expert: int, neurons: Neurons, generator: torch.Generator) -> None:
    """Neurons beyond those that are given start at random and contribute nothing yet."""
    experts = target.experts
    hidden_size, count, width = neurons.gate_FD.shape[1], len(neurons.gate_FD), experts.intermediate_size
    experts.gate_up_proj[expert].normal_(std=hidden_size**-0.5, generator=generator)
    experts.gate_up_proj[expert, :count] = neurons.gate_FD
    experts.gate_up_proj[expert, width : width + count] = neurons.up_FD
    experts.down_proj[expert] = 0.0
    experts.down_proj[expert, :, :count] = neurons.down_DF * experts.num_experts


def group_neurons(contribution_TF: Tensor, num_groups: int, generator: torch.Generator) -> Tensor:
    """Group of each neuron, ``[F]``: k-means on the direction of their contributions, with equal groups (one apart
    where they cannot be). Pairs of neuron and group are served from the most alike on while the group has room."""
    profile_TF = functional.normalize(contribution_TF.abs(), dim=0)
    num_neurons = profile_TF.shape[1]
    group_F = torch.arange(num_neurons) % num_groups
    group_F = group_F[torch.randperm(num_neurons, generator=generator)]
    for _ in range(ROUNDS):
        membership_FG = functional.one_hot(group_F, num_groups).float()
        centre_TG = functional.normalize(profile_TF @ membership_FG, dim=0)
        regrouped_F = _fill_groups(profile_TF.T @ centre_TG)
        if torch.equal(regrouped_F, group_F):
            break
        group_F = regrouped_F
    return group_F


def _fill_groups(likeness_FG: Tensor) -> Tensor:
    num_neurons, num_groups = likeness_FG.shape
    relative_FG = likeness_FG - likeness_FG.mean(1, keepdim=True)
    room = [num_neurons // num_groups + (group < num_neurons % num_groups) for group in range(num_groups)]
    group_F = torch.full((num_neurons,), -1)
    for pair in relative_FG.flatten().argsort(descending=True, stable=True).tolist():
        neuron, group = divmod(pair, num_groups)
        if group_F[neuron] < 0 and room[group]:
            group_F[neuron] = group
            room[group] -= 1
    return group_F


def fit_router(x_TD: Tensor, contribution_TE: Tensor) -> Tensor:
    """Router weights ``[E, D]`` by ridge regression of each expert's contribution above the mean of all, scaled to
    :data:`LOGIT_SPREAD`."""
    wanted_TE = contribution_TE - contribution_TE.mean(1, keepdim=True)
    gram_DD = x_TD.T @ x_TD + torch.eye(x_TD.shape[1])
    weight_ED: Tensor = torch.linalg.solve(gram_DD, x_TD.T @ wanted_TE).T
    logits_TE = x_TD @ weight_ED.T
    return weight_ED * (LOGIT_SPREAD / logits_TE.std().item())
