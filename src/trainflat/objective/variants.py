"""Varies an objective: among fewer weights, or with softer answers."""

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from trainflat.anatomy.heads import mean_loss
from trainflat.core.errors import InputError
from trainflat.objective.base import Batch, Objective, model_loss
from trainflat.objective.vectors import fitting


def under(objective: Objective, masks: Mapping[str, Tensor]) -> Objective:
    """Masks an objective further: directions, gradients and products are 0 where one of these masks is False too.

    Args:
        objective: Counts the passes of both.
        masks: Boolean, True = kept, by names of its parameters. The weights themselves are left as they are.

    Raises:
        InputError: a mask fits no weight.
    """
    named = dict(zip(objective.names, objective.weights, strict=True))
    part = copy.copy(objective)
    part.kept = [_both(a, b) for a, b in zip(objective.kept, fitting(masks, named), strict=True)]
    pairs = zip(part.weights, part.kept, strict=True)
    part.size = sum(w.numel() if kept is None else int(kept.sum()) for w, kept in pairs)
    return part


def at_temperature(objective: Objective, temperature: float) -> Objective:
    """Divides all logits of an objective by ``temperature``; the original counts the passes of both.

    Classes, tokens and both ends of spans by cross-entropy, labels by theirs. Numbers have no temperature.

    Raises:
        InputError: the objective has a loss of its own, of whose logits nothing is known.
    """
    if temperature == 1:
        return objective
    if objective.loss is not model_loss:
        raise InputError(
            f"temperature {temperature:g} divides the logits of transformers models; an objective with a loss of its "
            "own has none to divide. Set temperature=1, and divide in that loss."
        )

    def tempered(model: nn.Module, batch: Batch) -> Tensor:
        return mean_loss(model(**batch), batch, model, temperature)

    part = copy.copy(objective)
    part.loss = tempered
    return part


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
