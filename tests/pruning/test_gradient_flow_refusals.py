"""What pruners that score by the loss refuse, in one line each."""

from typing import Any

import pytest
import torch

from tests.conftest import tiny_bert
from tests.support.gradient_flow import Bowl, transformer
from tests.support.objectives import cut
from trainflat.core.errors import InputError, UnknownName
from trainflat.objective import Objective, at_temperature, model_loss
from trainflat.pruning import PRUNERS, GradientNormPruner, GraspPruner, LossPreservationPruner


def test_refusals() -> None:
    model, rows = transformer("classes")
    objective = Objective(model, cut(rows, 5))
    refused: list[tuple[Any, str]] = [
        (lambda: GraspPruner(model).scores(), "Grasp scores by the loss and got none. Give objective=Objective"),
        (lambda: GraspPruner(model, temperature=0), "temperature of the logits is a number above 0, got 0"),
        (lambda: GradientNormPruner(model, temperature="1"), "got '1'"),
        (
            lambda: LossPreservationPruner(model, rows=0),
            "rows of a pruner is a number of training rows, at least 1, got 0",
        ),
        (
            lambda: LossPreservationPruner(model, batch_size=2.5),
            "batch_size of a pruner .* got 2.5",
        ),
        (lambda: LossPreservationPruner(tiny_bert(), objective=objective).scores(), "objective does not move bert"),
        (
            lambda: GraspPruner(Bowl(), objective=Bowl().objective(2)).scores(),
            "temperature 200 divides the logits of",
        ),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
    flat = Objective(model, cut(rows, 5), loss=lambda model, batch: model.classifier.bias.sum())
    with pytest.raises(InputError, match="LossPreservation finds every score 0"):
        LossPreservationPruner(model, objective=flat).scores()
    endless = Objective(model, cut(rows, 5), loss=lambda model, batch: model_loss(model, batch) * torch.inf)
    with pytest.raises(InputError, match=r"pruning scores of bert\S+ are not finite"):
        LossPreservationPruner(model, objective=endless).scores()
    assert at_temperature(flat, 1) is flat


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "grasp", "sparsity": 0.5}, "no option of pruner 'grasp' is called 'sparsity'"),
        ({"name": "grasp", "temprature": 1}, "Did you mean 'temperature'"),
        ({"name": "magnitude", "rows": 1}, "no option of pruner 'magnitude' is called 'rows'"),
        ({"name": "graps"}, "Did you mean 'grasp'"),
    ],
)
def test_sections_with_unknown_names(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        PRUNERS.read(section)
