"""Balance of the experts: without a counterweight a router sends ever more tokens to few of them.

Shape legend: T tokens of a batch, E experts, K experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ConfigError
from engine.layers.moe import Router
from engine.layers.routing import Routing, SoftmaxRouting


class RouterLoss:
    """Listens to the softmax routers of ``model``; owns what they have computed since the last :meth:`take`.

    The loss of a router is ``E * sum(f_e * P_e)``, with f_e the assignments to expert e per token and P_e its mean
    probability: K where the load is even, and more where it is not. Source: Fedus et al., "Switch Transformers" (arXiv
    2101.03961, section 2.2), for K experts per token as Qwen3-MoE's ``router_aux_loss_coef`` weighs it.

    Make it before the network is compiled. Forwards without gradients are not listened to.
    """

    def __init__(self, model: nn.Module, weight: float) -> None:
        routers = [module for module in model.modules() if isinstance(module, Router)]
        if not routers or not all(isinstance(router.rule, SoftmaxRouting) for router in routers):
            message = "A balancing loss needs a mixture of experts with softmax routers; leave it out (0)."
            raise ConfigError(message, "router_balance")
        self._weight = weight
        self._heard: list[tuple[Tensor, Tensor]] = []
        for router in routers:
            router.register_forward_hook(self._hear)

    def take(self, counted_T: Tensor) -> Tensor:
        """The weighed mean over the routers of the last forward, over the tokens that are ``counted_T``; then forget
        it."""
        heard, self._heard = self._heard, []
        losses = [balance(logits_TE[counted_T], experts_TK[counted_T]) for logits_TE, experts_TK in heard]
        return self._weight * torch.stack(losses).mean()

    def _hear(self, router: Router, arguments: tuple[Tensor, ...], routing: Routing) -> None:
        if torch.is_grad_enabled():
            logits_TE = functional.linear(arguments[0].float(), router.weight.float())
            self._heard.append((logits_TE, routing.experts_TK))


def balance(logits_TE: Tensor, experts_TK: Tensor) -> Tensor:
    """``E * sum(f_e * P_e)``; gradients flow through the probabilities only."""
    num_experts = logits_TE.shape[1]
    assigned_E = torch.bincount(experts_TK.flatten(), minlength=num_experts) / len(experts_TK)
    return num_experts * (assigned_E * logits_TE.softmax(-1).mean(0)).sum()
