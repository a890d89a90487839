"""Structural gates in the middle of a run, and what they compute by autograd through a masked copy."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.masked import masked
from trainflat.anatomy import anatomy_of
from trainflat.pruning.gates import CoFi, StructuralGate
from trainflat.pruning.structured import Kept, KeptLayer

TOTAL = 40
RISE = {"name": "linear", "start": 4, "hold": 20}
SHORT: dict[str, Any] = {"schedule": RISE, "score_lr": 0.5, "multiplier_lr": 0.2}
"""Options under which a run of 40 steps can follow the target."""
START = 3
TRAINED: dict[str, dict[str, Any]] = {
    "cofi": {
        "name": "cofi",
        "target_sparsity": 0.5,
        "schedule": {"name": "linear", "start": START, "hold": 5},
        "score_lr": 2.0,
        "multiplier_lr": 0.5,
    },
    "grain": {"name": "grain", "target_sparsity": 0.5, "schedule": {"name": "cubic", "start": START, "hold": 5}},
}
"""Gates of a structure in the Trainer, for runs of 12 steps."""


def begun(model: nn.Module, step: int = 10, seed: int = 5, spread: float = 2.0, **options: Any) -> CoFi:
    """A gate after some steps, its scores on both sides of every cut."""
    gate = CoFi(model, **(SHORT | options))
    gate.begin(TOTAL, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for score in gate.scores.values():
        score.data.copy_(spread * torch.randn(score.shape, generator=generator, dtype=torch.float64))
    gate.advance(step)
    return gate


def values_by_hand(gate: StructuralGate, scores: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """The k-th draw as autograd sees it: equations (10) and (11) of Louizos et al."""
    found = {}
    for name, score in scores.items():
        u = gate.function.noise(f"{name}, draw {k}", score.detach(), gate.at)
        s = ((u.log() - (1 - u).log() + score) / (2 / 3)).sigmoid()
        found[name] = (s * 1.2 - 0.1).clamp(0, 1)
    return found


def reference(model: Any, values: dict[str, Tensor]) -> Any:
    """A copy of the model that multiplies by these values, one module after the other."""
    kept = Kept.all(anatomy_of(model))
    layers = tuple(_layer(own, place, values) for place, own in enumerate(kept.layers))
    return masked(model, replace(kept, layers=layers, hidden=values.get("hidden dimension", kept.hidden)))


def _layer(own: KeptLayer, place: int, values: dict[str, Tensor]) -> KeptLayer:
    whole: Any = [values[f"{kind} sub-layer {place}"][0] for kind in ("attention", "feed-forward")]
    heads, units = values[f"head {place}"], values[f"feed-forward unit {place}"]
    # masked() repeats a head's factor over its dimensions, and asks a plain number whether a sub-layer is skipped.
    return replace(own, heads=heads, units=units, attention=whole[0], feed_forward=whole[1])


def size_by_hand(anatomy: Any, values: dict[str, Tensor], *, hidden: bool) -> Any:
    """CoFi's numerator, summed unit by unit over values or chances; differentiable."""
    width, total = anatomy.hidden_size, 0.0
    for place, layer in enumerate(anatomy.layers):
        a = layer.attention
        size = a.output.inputs // a.heads
        head = 4 * size * width + 3 * size + width / a.heads  # three biases of its own, and its share of the output's
        unit = 2 * width if hidden else 2 * width + 1
        for z in values[f"head {place}"]:
            total = total + z * values[f"attention sub-layer {place}"][0] * head
        for z in values[f"feed-forward unit {place}"]:
            total = total + z * values[f"feed-forward sub-layer {place}"][0] * unit
    return total * values["hidden dimension"].sum() / width if hidden else total
