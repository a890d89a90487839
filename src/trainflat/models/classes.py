"""Matches the classes of a fine-tuned model with a task's, whatever their spelling and order."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from trainflat.core.errors import InputError
from trainflat.tasks.base import Head
from trainflat.tasks.labels import canonical, match_names


@dataclass(frozen=True)
class ClassOrder:
    """Places each of a task's classes in a model's head; ``note`` says so where people would not expect it."""

    places: tuple[int, ...]
    note: str = ""

    @property
    def moved(self) -> bool:
        """Whether the two orders differ."""
        return list(self.places) != sorted(self.places)


def class_names(config: PreTrainedConfig) -> tuple[str, ...]:
    """Lists the classes that a model's config names, in order."""
    return tuple(str(config.id2label[index]) for index in sorted(config.id2label))


def find_order(config: PreTrainedConfig, head: Head, name: str) -> ClassOrder | None:
    """Finds the task's classes in the head that a model was saved with; None: it has others, or no such head.

    Numbers (0, 1, ...; LABEL_0, ...), in the model or in the task, stand for the classes of the other in order.
    """
    saved = any(str(one).endswith("SequenceClassification") for one in config.architectures or ())
    known = class_names(config)
    places = match_names(head.labels, known) if saved and head.kind == "classification" else None
    if places is None:
        return None
    if places != sorted(places):
        note = f"model {name!r} has the classes in the order {_list(known)}; its head is put in the task's order"
    elif {*map(canonical, known)} != {*map(canonical, head.labels)}:
        pairs = [f"{one} for {other}" for one, other in zip(head.labels, known, strict=True)]
        note = f"the task's classes are taken in order for those of model {name!r}: {_list(pairs)}"
    else:
        return ClassOrder(tuple(places))
    return ClassOrder(tuple(places), f"{note}.")


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{name:.60}" for name in names[:10]) + (", ..." if len(names) > 10 else "")


def reorder_head(model: PreTrainedModel, order: ClassOrder, name: str) -> None:
    """Puts the outputs of a model's head in the task's order.

    Raises:
        InputError: the head does not end in a linear layer.
    """
    inside = set(model.base_model.modules())
    size = len(order.places)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inside and m.out_features == size]
    if not linear:
        raise InputError(
            f"the head of model {name!r} has its classes in another order than the task, and cannot be put in order. "
            "List the task's `classes` in the model's order, if the task is `files`; or give another model."
        )
    places = list(order.places)
    with torch.no_grad():
        for parameter in linear[-1].parameters():  # weight and bias, a row or entry per class
            parameter.copy_(parameter[places].clone())
