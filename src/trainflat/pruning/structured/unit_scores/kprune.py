"""Knowledge of units (K-prune: Park et al., ICLR 2024, arXiv:2308.03449), written from its description."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from torch import Generator, Tensor

from trainflat.core.settings import Number, checked
from trainflat.pruning.structured.layerwise import Batch, rows_of
from trainflat.pruning.structured.pulls import pulls
from trainflat.pruning.structured.unit_scores.base import Ranking, UnitInputs, UnitScore, gate_gradients

NotNegative = Annotated[float, Number("is a weight, at least 0", lambda x: x >= 0)]


class KpruneUnits(UnitScore):
    r"""Scores a unit by the predictive and the representational knowledge that goes with it.

    .. math:: s_i = \frac{\lambda_p}{2} E_n \Big[\frac{\partial^2 KL}{\partial m_i^2}\Big]
        + \lambda_r E_n \Big[\sum_t x_{ti}^2\Big] \operatorname{mean}_j W_{ji}^2

    over rows n and their tokens t, with unit i's output x (a head's: all its columns together) and its gate m.
    K-prune cuts all units at one threshold of s over FLOPs; the search over widths does the same, since that threshold
    is the multiplier of its budget. No labels are looked at.

    Departs from the authors: their predictive term squares the gradient of KL against the dense model, which is 0 at
    the dense model itself; here it is the curvature of KL, which is not. And scores are taken once, on the dense model.

    Args:
        predictive: :math:`\lambda_p`.
        representational: :math:`\lambda_r`.
    """

    @checked
    def __init__(self, predictive: NotNegative = 1.0, representational: NotNegative = 2.5e-4) -> None:
        self.predictive, self.representational = predictive, representational

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        pairs = zip(_curvatures(inputs), _representations(inputs), strict=True)
        return [Ranking.by(self.predictive / 2 * p + self.representational * r) for p, r in pairs]


def _curvatures(inputs: UnitInputs) -> list[Tensor]:
    """Returns the second derivative of KL in each gate, in the mean over rows: [units] per sub-layer."""

    def curvature(model: Any, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        # Anew for each batch, so that the order of batches changes no draw.
        return pulls(model, outputs, batch, Generator().manual_seed(inputs.seed))

    total = [torch.zeros(len(sub.units)).double() for sub in inputs.sub_layers()]
    for gradients in gate_gradients(inputs, curvature):
        for sums, gradient in zip(total, gradients, strict=True):
            sums.add_(gradient.square().sum(0).cpu())
    return [sums / rows_of(inputs.batches) for sums in total]


def _representations(inputs: UnitInputs) -> list[Tensor]:
    rows, found = rows_of(inputs.batches), []
    for station in inputs.stations():
        squares = sum(seen.inputs.double().square().sum(0) for seen in station.seen())
        weight = station.sub.matrix(inputs.model).weight.detach().double()
        found.append((squares * weight.square().mean(0) / rows).view(-1, station.sub.width).sum(1))
    return found
