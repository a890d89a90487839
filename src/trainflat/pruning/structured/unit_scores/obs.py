"""Optimal Brain Surgeon for units, with least squares (ZipLM: Kurtic et al., NeurIPS 2023, arXiv:2302.04089)."""

import torch
from torch import Tensor, nn

from trainflat.core.settings import checked
from trainflat.pruning.structured.elimination import eliminate
from trainflat.pruning.structured.moments import Moments, Ridge
from trainflat.pruning.structured.sensitivity import sensitivities
from trainflat.pruning.structured.sub_layers import SubLayer
from trainflat.pruning.structured.unit_scores.base import Ranking, UnitInputs, UnitScore


class ObsUnits(UnitScore):
    r"""Drops one unit after the other, each time the one that least squares can do best without.

    .. math:: \operatorname{argmin}_S \operatorname{tr}(W_S^T G W_S [(H^{-1})_{SS}]^{-1}), \quad
        H = E[x x^T] + \lambda I

    over groups S of columns of the output matrix W, after each of which W and :math:`H^{-1}` become those of the
    columns that are left (:mod:`~trainflat.pruning.structured.elimination`). So correlated units are not all dropped,
    and there is an error for each width, with the matrix solved anew.

    Departs from ZipLM in three ways. Errors are weighed by G, how much the model's own predictions change with the
    sub-layer's output (:func:`~trainflat.pruning.structured.sensitivity.sensitivities`), so that they are one loss in
    all sub-layers; theirs are relative to the output, and weights of sub-layers are then searched for. The bias is
    solved too, where there is one. And once the widths are chosen, units are chosen again, with what earlier
    sub-layers have become. No labels are looked at.

    Args:
        ridge: :math:`\lambda`, as a multiple of the mean of H's diagonal.
    """

    chooses_again = True

    @checked
    def __init__(self, ridge: Ridge = 1e-3) -> None:
        self.ridge = ridge
        self.roots: dict[str, Tensor] = {}

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        subs, found = inputs.sub_layers(), []
        weighed = sensitivities(inputs.model, subs, inputs.batches, inputs.seed, inputs.progress)
        self.roots = {sub.name: _root(matrix) for sub, matrix in zip(subs, weighed, strict=True)}
        for station in inputs.stations():
            matrix = station.sub.matrix(inputs.model)
            hessian, _ = self._ridged(Moments.of(station.seen()), matrix)
            weight = self.roots[station.sub.name] @ matrix.weight.detach().double()
            found.append(Ranking(*eliminate(hessian, weight, station.sub.width)))
        return found

    def order_again(self, sub: SubLayer, matrix: nn.Linear, moments: Moments, drop: int) -> Tensor:
        hessian, cross = self._ridged(moments, matrix)
        solved = torch.cholesky_solve(cross, torch.linalg.cholesky(hessian)).T
        return eliminate(hessian, self.roots[sub.name] @ solved, sub.width, drop).order

    def _ridged(self, moments: Moments, matrix: nn.Linear) -> tuple[Tensor, Tensor]:
        given = moments if matrix.bias is None else moments.centred()
        return given.ridged(matrix.weight.detach(), self.ridge)


def _root(matrix: Tensor) -> Tensor:
    """Returns R with R^T R = G; a little of the identity is added, lest units count nothing where G is 0."""
    size = len(matrix)
    values, vectors = torch.linalg.eigh(matrix + 1e-6 * matrix.diagonal().mean() * torch.eye(size, dtype=matrix.dtype))
    root: Tensor = values.clamp_min(0).sqrt()[:, None] * vectors.T
    return root
