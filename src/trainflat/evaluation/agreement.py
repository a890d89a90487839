"""Whether two models give the same answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainflat.evaluation.modes import evaluating

# Of the scores' standard deviation, within which a score is the same. Errors of which nine in ten are that small cost a
# correlation about 1 %: half the square of 0.25 / 1.64.
_STEADY = 0.25
_STEADY_FOREIGN = 0.1  # of the largest score


@dataclass(frozen=True)
class Agreement:
    """How near the answers of two models are.

    Attributes:
        rows: That both answered.
        difference: Largest absolute difference of two logits; infinite where one is no number.
        scale: Largest absolute logit of the first model.
        share: Of the rows that have the same prediction: class, span, or a score that differs by less than a quarter
            of the scores' standard deviation, or a tenth of the largest one where the rows are foreign.
    """

    rows: int
    difference: float
    scale: float
    share: float


def compare_answers(
    one: nn.Module, other: nn.Module, batches: Iterable[Mapping[str, Tensor]], *, foreign: bool = False
) -> Agreement:
    """Compares two models on the same rows.

    Args:
        one: Takes a batch by name and gives ``logits`` [N, classes] or [N, 1], or ``start_logits`` and ``end_logits``
            [N, tokens].
        other: As ``one``.
        batches: Padded, with ``attention_mask``.
        foreign: The rows are not of the models' task: all may then have nearly one score, and their deviation says
            nothing.
    """
    pairs = [(_answers(one, batch), _answers(other, batch), batch["attention_mask"]) for batch in batches]
    differences, scales, same = [], [], []
    for first, second, mask in pairs:
        for name, logits in first.items():
            inside = mask.bool() if name != "logits" else torch.ones_like(logits, dtype=torch.bool)
            differences.append((logits - second[name])[inside].abs().max().nan_to_num(nan=torch.inf))
            scales.append(logits[inside].abs().max())
        same.append(_same(first, second, mask))
    if _is_regression(pairs[0][0]):
        scored = torch.cat([first["logits"] for first, _, _ in pairs])
        steady = _STEADY_FOREIGN * scored.abs().max() if foreign else _STEADY * scored.std(correction=0)
        same = [(first["logits"] - second["logits"]).abs()[:, 0] <= steady for first, second, _ in pairs]
    rows = torch.cat(same)
    return Agreement(len(rows), float(max(differences)), float(max(scales)), float(rows.double().mean()))


def _answers(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with evaluating(model) as device:
        output = model(**{name: value.to(device) for name, value in batch.items()})
    names = ("start_logits", "end_logits") if "start_logits" in output else ("logits",)
    return {name: output[name].float().cpu() for name in names}


def _is_regression(answer: Mapping[str, Tensor]) -> bool:
    return "logits" in answer and answer["logits"].shape[1] == 1


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Per row, whether the highest logits stand in the same places [N]."""
    found = torch.ones(len(mask), dtype=torch.bool)
    for name in first:
        hidden = ~mask.bool() if name != "logits" else torch.zeros_like(first[name], dtype=torch.bool)
        highest = [answer[name].masked_fill(hidden, -torch.inf).argmax(dim=1) for answer in (first, second)]
        found &= highest[0] == highest[1]
    return found
