"""Compares the answers of two models."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainflat.anatomy.heads import Kind, kind_of, no_padding, same_answers
from trainflat.anatomy.params import unwrapped
from trainflat.evaluation.modes import evaluating

# Of the scores' standard deviation, within which a score is the same. Errors of which nine in ten are that small cost a
# correlation about 1 %: half the square of 0.25 / 1.64.
_STEADY = 0.25
_STEADY_FOREIGN = 0.1  # of the largest score


@dataclass(frozen=True)
class Agreement:
    """Holds the differences between the answers of two models.

    Attributes:
        rows: That both answered.
        difference: Largest absolute difference of two logits; infinite where one is no number.
        scale: Largest absolute logit of the first model.
        share: Of the rows that have the same prediction: class, set of labels, classes of all tokens, span, or scores
            that differ by less than a quarter of the scores' standard deviation, or a tenth of the largest one where
            the rows are foreign.
    """

    rows: int
    difference: float
    scale: float
    share: float


def compare_answers(
    one: nn.Module,
    other: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    others: Iterable[Mapping[str, Tensor]] | None = None,
    foreign: bool = False,
    kind: Kind | None = None,
) -> Agreement:
    """Compares two models on the same rows.

    Args:
        one: Takes a batch by name and gives ``logits`` [N, classes], [N, 1] or [N, tokens, classes], or
            ``start_logits`` and ``end_logits`` [N, tokens].
        other: As ``one``.
        batches: Padded, with ``attention_mask``.
        others: The same rows as ``other`` reads them, where its tokenizer is another.
        foreign: The rows are not of the models' task: all may then have nearly one score, and their deviation says
            nothing.
        kind: Of the answers, where no configuration of a transformers model tells.

    Raises:
        InputError: nothing tells it.
    """
    both = ((batch, batch) for batch in batches) if others is None else zip(batches, others, strict=True)
    pairs = [(_answers(one, own), _answers(other, foreigns), own["attention_mask"]) for own, foreigns in both]
    known = one if getattr(unwrapped(one), "config", None) is not None else other
    kind = kind or kind_of(known, pairs[0][0])
    differences, scales, same = [], [], []
    for first, second, mask in pairs:
        for name, logits in first.items():
            inside = no_padding(kind, logits, mask)
            differences.append((logits - second[name])[inside].abs().max().nan_to_num(nan=torch.inf))
            scales.append(logits[inside].abs().max())
        same.append(same_answers(kind, first, second, mask))
    if kind == "numbers":
        scored = torch.cat([first["logits"] for first, _, _ in pairs])
        steady = _STEADY_FOREIGN * scored.abs().amax(0) if foreign else _STEADY * scored.std(0, correction=0)
        same = [((first["logits"] - second["logits"]).abs() <= steady).all(1) for first, second, _ in pairs]
    rows = torch.cat(same)
    return Agreement(len(rows), float(max(differences)), float(max(scales)), float(rows.double().mean()))


def _answers(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with evaluating(model) as device:
        output = model(**{name: value.to(device) for name, value in batch.items()})
    names = ("start_logits", "end_logits") if "start_logits" in output else ("logits",)
    if names[0] not in output:
        kind_of(model, output)  # refuses it
    return {name: output[name].float().cpu() for name in names}
