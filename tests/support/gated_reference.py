"""Gates written by hand with autograd, on nothing but formulas: what the closed form must agree with."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.support import block_reference, ratio_reference
from trainflat.pruning.gates import L0, BlockMovement, HardMovement, LearnedMask, MLPruning, SoftMovement

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def straight_through(mask: Tensor, scores: Tensor) -> Tensor:
    """The mask, whose gradient goes to the scores as it comes."""
    return mask.to(scores.dtype) + scores - scores.detach()


def top(scores: Mapping[str, Tensor], sparsity: float, scope: str) -> dict[str, Tensor]:
    """``Top_v`` by a stable sort: of equal scores the first go."""
    if scope == "layer":
        return {name: _top({name: s}, sparsity)[name] for name, s in scores.items()}
    return _top(scores, sparsity)


def _top(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    flat = torch.cat([s.detach().flatten() for s in scores.values()])
    mask = torch.ones(len(flat), dtype=torch.bool)
    mask[torch.sort(flat, stable=True).indices[: round(sparsity * len(flat))]] = False
    parts = torch.split(mask, [s.numel() for s in scores.values()])
    return {name: part.view(s.shape) for (name, s), part in zip(scores.items(), parts, strict=True)}


def spread(mask: Tensor, weight: Tensor, unit: str) -> Tensor:
    """One value per unit, over its weights."""
    if unit == "block":
        blocks = mask[:, 0, :, 0]
        return blocks.repeat_interleave(32, 0).repeat_interleave(32, 1)
    return mask.expand_as(weight)


class ByHand:
    """A model that computes with ``W * m(S)`` as autograd sees it, next to the gate that it copies."""

    def __init__(self, model: nn.Module, gate: LearnedMask) -> None:
        self.model, self.gate = model, gate
        self.weights = {name: model.get_parameter(name) for name in gate.weights}
        self.scores = {name: nn.Parameter(s.detach().clone()) for name, s in gate.scores.items()}

    def gated(self) -> tuple[dict[str, Tensor], Tensor]:
        """What the model computes with, and the penalty."""
        gate, none = self.gate, torch.zeros((), dtype=torch.float64)
        if isinstance(gate, BlockMovement):
            return block_reference.gated(gate, self.weights, self.scores)
        if isinstance(gate, MLPruning):
            return ratio_reference.gated(gate, self.weights, self.scores)
        if isinstance(gate, HardMovement):
            masks = top(self.scores, gate.at.scheduled(gate.sparsity), gate.scope)
            factors, penalty = {n: straight_through(masks[n], s) for n, s in self.scores.items()}, none
        elif isinstance(gate, SoftMovement):
            share = gate.schedule.share(gate.step, gate.total_steps)
            factors = {n: straight_through(s.sigmoid() > gate.threshold * share, s) for n, s in self.scores.items()}
            penalty = gate.penalty * share * torch.stack([s.sigmoid().mean() for s in self.scores.values()]).mean()
        else:
            assert isinstance(gate, L0)
            share = gate.schedule.share(gate.step, gate.total_steps)
            factors = {n: _hard_concrete(gate.function.noise(n, s, gate.at), s) for n, s in self.scores.items()}
            odds = [(s - BETA * math.log(-GAMMA / ZETA)).sigmoid().mean() for s in self.scores.values()]
            penalty = gate.penalty * share * torch.stack(odds).mean()
        return {n: w * spread(factors[n], w, gate.unit) for n, w in self.weights.items()}, penalty

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The model's, plus the penalty."""
        weights, penalty = self.gated()
        loss: Tensor = functional_call(self.model, weights, kwargs=dict(batch)).loss
        return loss + penalty

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [*self.model.parameters(), *self.scores.values()]


def _hard_concrete(u: Tensor, scores: Tensor) -> Tensor:
    s = ((u.log() - (1 - u).log() + scores) / BETA).sigmoid()
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def train_by_hand(
    hand: ByHand, batches: list[Any], optimizer: torch.optim.Optimizer, after: Callable[[int], None]
) -> None:
    """Plain steps; ``after`` moves the gate on, which tells the step and its draws."""
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        hand.loss(batch).backward()
        optimizer.step()
        after(step + 1)
