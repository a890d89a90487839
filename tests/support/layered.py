"""Students whose layers learn from a teacher's, for tests: with the Trainer, and without."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.teachers import teacher_model
from tests.support.training import NO_DROPOUT, arguments
from trainflat.training import FlatTrainer

SHARE = 0.6
FIXED = {"weight": SHARE, "matching": "fixed", "teacher_layers": [1, 2]}
"""A match that does not depend on the rows, so that a batch may be cut."""


def wide_teacher(layers: int = 2, **options: Any) -> nn.Module:
    """A teacher in float64 that is wider than the student, and asked without dropout."""
    return teacher_model(hidden_size=24, num_hidden_layers=layers, **options).double()


def layered(
    folder: Path,
    recipe: Any,
    layerwise: Any = FIXED,
    *,
    teacher: Any = None,
    weight: float = 0,
    model: Any = None,
    rows: int = 48,
    parts: Any = None,
    **options: Any,
) -> FlatTrainer:
    """FlatTrainer that was not trained yet; ``weight`` is of the teacher's logits."""
    return FlatTrainer(
        tiny_bert(**NO_DROPOUT).double() if model is None else model,
        arguments(folder, **options),
        train_dataset=random_split(rows),
        data_collator=collate,
        optimizer=recipe,
        distillation={"teacher": wide_teacher() if teacher is None else teacher, "weight": weight},
        layerwise=layerwise,
        **(parts or {}),
    )


class ByHand(nn.Module):
    """The student with its map, whose loss is written down once more; layers are matched with those of their number."""

    def __init__(self, model: nn.Module, teacher: nn.Module, share: float) -> None:
        super().__init__()
        self.model, self.share = model, share
        self.map = nn.Linear(model.config.hidden_size, teacher.config.hidden_size).double()
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.teacher = [teacher.eval()]  # in a list, so that it is no part of this

    def forward(self, **batch: Tensor) -> Any:
        labels, mask = batch.pop("labels"), batch["attention_mask"]
        with torch.no_grad():
            heard = self.teacher[0](**batch, output_hidden_states=True).hidden_states
        outputs = self.model(**batch, output_hidden_states=True)
        rows = (1 - self.share) * F.cross_entropy(outputs.logits, labels, reduction="none")
        for layer in (1, 2):
            apart = (self.map(outputs.hidden_states[layer]) - heard[layer]).pow(2).mean(-1)
            rows = rows + self.share * torch.stack(
                [one[own.bool()].mean() for one, own in zip(apart, mask, strict=True)]
            )
        return SimpleNamespace(loss=rows.mean(), logits=outputs.logits, row_losses=rows)
