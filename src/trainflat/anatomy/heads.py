"""Finds the kind of a model's task head, and computes losses and predictions by it.

Shape suffixes: B rows, C classes, labels, choices or numbers, T tokens.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from trainflat.anatomy.params import unwrapped
from trainflat.core.errors import InputError

Kind = Literal["classes", "labels", "numbers", "tokens", "spans"]
"""One of C classes or choices; any of C labels; C numbers; a class or word per token [T]; start and end of a span."""

_IGNORED = -100  # label of positions without loss, as in transformers
_PROBLEMS: dict[str, Kind] = {
    "single_label_classification": "classes",
    "multi_label_classification": "labels",
    "regression": "numbers",
}


def kind_of(model: Any, outputs: Mapping[str, Any], labels: Tensor | None = None) -> Kind:
    """Finds the kind of a model's task head from its outputs and its configuration's problem type.

    Args:
        model: A transformers model, or any module, which has no configuration to read.
        outputs: Outputs of a batch.
        labels: Labels of the batch, if it has some.

    Raises:
        InputError: the outputs have no ``logits``, or the logits could be classes, labels or numbers.
    """
    if "start_logits" in outputs:
        return "spans"
    name, logits = type(unwrapped(model)).__name__, outputs.get("logits")
    if not isinstance(logits, Tensor) or not 1 <= logits.dim() <= 3:
        raise InputError(
            f"{name} returns {', '.join(outputs)}; known are logits of classes, labels, numbers and tokens, and "
            "start and end logits of spans. Use a model with such a head."
        )
    if logits.dim() == 3:
        return "tokens"
    config = getattr(unwrapped(model), "config", None)
    problem = _PROBLEMS.get(str(getattr(config, "problem_type", None)))
    if problem is None and logits.shape[-1] == 1:
        return "numbers"
    if problem is None and labels is not None and labels.is_floating_point():
        return "labels"  # the rule by which transformers sets problem_type at the first batch
    if problem is None and config is None and labels is None:
        raise InputError(
            f"{name} has no configuration that says whether its {logits.shape[-1]} logits are classes, labels or "
            "numbers. Give the kind."
        )
    return problem or "classes"


def row_losses(outputs: Any, inputs: Mapping[str, Any], model: Any = None) -> Tensor:
    """Computes losses per row [B] whose mean is the model's own loss, in float32 at least.

    Cross-entropy for classes, the mean of binary cross-entropies for labels, the mean squared error for numbers, the
    mean of both ends' cross-entropies for spans. For tokens the sum of a row's cross-entropies, scaled so that the mean
    over rows is the mean over the batch's tokens, as transformers takes it.
    """
    if "start_positions" in inputs:
        ends = (outputs["start_logits"], inputs["start_positions"]), (outputs["end_logits"], inputs["end_positions"])
        return torch.stack([_position_losses(logits, at) for logits, at in ends]).mean(0)
    labels = inputs["labels"]
    kind, logits = kind_of(model, outputs, labels), _wide(outputs["logits"])
    if kind == "numbers":
        return torch.square(logits.flatten(1) - labels.reshape(len(logits), -1)).mean(1)
    if kind == "labels":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(1)
    losses = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=_IGNORED, reduction="none")
    return losses.view(len(labels), -1).sum(1) * (len(labels) / loss_count(inputs))


def mean_loss(outputs: Any, inputs: Mapping[str, Any], model: Any, temperature: float) -> Tensor:
    """Computes the model's own loss with all logits divided by a temperature; regression has no temperature."""
    names = [name for name in ("logits", "start_logits", "end_logits") if name in outputs]
    cooled = {name: outputs[name] / temperature for name in names}
    if "start_positions" in inputs:
        ends = (cooled["start_logits"], inputs["start_positions"]), (cooled["end_logits"], inputs["end_positions"])
        first, last = (F.cross_entropy(z, _inside(z, at)[0], ignore_index=z.shape[1]) for z, at in ends)
        return (first + last) / 2
    kind = kind_of(model, outputs, inputs["labels"])
    if kind == "numbers":
        loss: Tensor = outputs["loss"]
        return loss
    if kind == "labels":
        return row_losses(cooled, inputs, model).mean()
    return F.cross_entropy(cooled["logits"].flatten(0, -2), inputs["labels"].flatten(), ignore_index=_IGNORED)


def loss_count(inputs: Mapping[str, Any]) -> int:
    """Counts the terms of a batch's mean loss: labels that are not ignored, or rows."""
    labels = inputs.get("labels")
    if isinstance(labels, Tensor) and not labels.is_floating_point() and labels.dim():
        return max(int((labels != _IGNORED).sum()), 1)
    return next((len(value) for value in inputs.values() if isinstance(value, Tensor) and value.dim()), 0)


def check_row_losses(model: Any, losses: Tensor, outputs: Any) -> None:
    """Checks that the mean of row losses is the loss that the model returned, if it returned one.

    Raises:
        InputError: it is not, because the model's head computes another loss.
    """
    if "loss" not in outputs or outputs["loss"] is None:
        return
    own, found = float(outputs["loss"].detach()), float(losses.detach().mean())
    if abs(own - found) > 1e-2 * max(abs(own), 1e-2):  # half precision has three digits
        raise InputError(
            f"{type(unwrapped(model)).__name__} computes a loss of its own ({own:.4g}; the mean over its rows is "
            f"{found:.4g}), so losses of single rows are not known. Use an optimizer or teacher that weighs no rows."
        )


def same_answers(kind: Kind, first: Mapping[str, Tensor], second: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Compares two models' predictions per row [B]: the highest logits, or the labels with logits above 0."""
    found = torch.ones(len(mask), dtype=torch.bool)
    for name in first:
        one, other = first[name], second[name]
        if kind == "labels":
            alike = ((one > 0) == (other > 0)).all(1)
        elif kind == "tokens":
            alike = ((one.argmax(-1) == other.argmax(-1)) | ~_tokens(mask, one)).all(1)
        elif kind == "spans":
            highest = [answer.masked_fill(~mask.bool(), -torch.inf).argmax(dim=1) for answer in (one, other)]
            alike = highest[0] == highest[1]
        else:
            alike = one.argmax(dim=1) == other.argmax(dim=1)
        found &= alike
    return found


def no_padding(kind: Kind, logits: Tensor, mask: Tensor) -> Tensor:
    """Returns a boolean mask in the logits' shape, False at padding."""
    if kind == "spans":
        return mask.bool()
    if kind == "tokens":
        return _tokens(mask, logits)[:, :, None].expand_as(logits)
    return torch.ones_like(logits, dtype=torch.bool)


def classes_of(model: Any, inputs: Mapping[str, Any]) -> int:
    """Returns the number of classes of each label of a batch; 1 for regression.

    Raises:
        InputError: rows have several labels.
    """
    plain, labels = unwrapped(model), inputs["labels"]
    problem, real = _PROBLEMS.get(str(plain.config.problem_type)), labels.is_floating_point()
    if inputs["input_ids"].dim() == 3 and not real:  # multiple choice
        return int(inputs["input_ids"].shape[1])
    if problem != "labels" and (problem == "numbers" or plain.config.num_labels == 1):
        return 1
    if problem == "labels" or real:
        raise InputError(f"{type(plain).__name__} has several labels per row; noise is for one class or numbers.")
    # The labels of a language model's tokens are words, whatever num_labels says.
    words = plain.get_output_embeddings() if hasattr(plain, "get_output_embeddings") else None
    return int(plain.config.num_labels if words is None else plain.config.vocab_size)


def _tokens(mask: Tensor, logits: Tensor) -> Tensor:
    return mask.bool()[:, : logits.shape[1]]


def _position_losses(logits: Tensor, positions: Tensor) -> Tensor:
    inside, counts = _inside(logits, positions)
    losses = F.cross_entropy(_wide(logits), inside, ignore_index=logits.shape[1], reduction="none")
    return losses * (len(inside) / counts)


def _inside(logits: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    # As in transformers' question answering: a position beyond a truncated row is ignored, and so is not in the mean.
    length = logits.shape[1]
    inside = positions.clamp(0, length)
    return inside, (inside < length).sum().clamp_min(1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
