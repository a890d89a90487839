"""Second moments of what an output matrix reads and should put out: all that least squares need to know of the data."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainflat.pruning.structured.layerwise import Seen


@dataclass(frozen=True)
class Moments:
    """Sums over N positions, in float64; centred where the matrix has a bias, which takes the means' part.

    Attributes:
        count: N.
        inputs: [inputs, inputs], inputs times inputs.
        cross: [inputs, outputs], inputs times targets.
        target: Sum of the targets' squares.
        mean_input: [inputs]; 0 without a bias.
        mean_target: [outputs]; 0 without a bias.
    """

    count: int
    inputs: Tensor
    cross: Tensor
    target: float
    mean_input: Tensor
    mean_target: Tensor

    @classmethod
    def of(cls, seen: Iterable[Seen], *, centred: bool) -> "Moments":
        """Sums up the positions of all batches; their order only changes the rounding."""
        total: dict[str, Tensor] = {}
        for one in seen:
            x, t = one.inputs.double(), one.target.double()
            parts = {"xx": x.T @ x, "xt": x.T @ t, "tt": t.square().sum(), "x": x.sum(0), "t": t.sum(0)}
            parts["n"] = torch.tensor(len(x))
            total = {name: total[name] + part if total else part for name, part in parts.items()}
        n = int(total["n"])
        x, t = (total[name] / n * centred for name in ("x", "t"))
        inputs, cross = total["xx"] - n * torch.outer(x, x), total["xt"] - n * torch.outer(x, t)
        return cls(n, inputs, cross, float(total["tt"] - n * t.square().sum()), x, t)

    def error(self, weight: Tensor) -> float:
        """Returns the mean squared error per position, summed over outputs, of a matrix [outputs, inputs].

        That is with the bias that suits it best, where moments are centred.
        """
        w = weight.double()
        squares = ((w @ self.inputs) * w).sum() - 2 * (w * self.cross.T).sum()
        return (float(squares) + self.target) / self.count

    def ridged(self, weight: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Returns H and C of the loss tr(W H W^T) - 2 tr(W C), the mean squared error and a pull towards ``weight``.

        Args:
            weight: The dense matrix [outputs, inputs]. Pulled towards it, not towards 0, columns that the data says
                little of stay as they were.
            ridge: Strength of the pull, as a multiple of the mean square of an input.
        """
        size = len(self.inputs)
        # Above 0 even where all inputs are constant, so that there is always a solution.
        pull = ridge * max(float(self.inputs.diagonal().mean()) / self.count, 1e-12)
        identity = torch.eye(size, dtype=torch.float64)
        return self.inputs / self.count + pull * identity, self.cross / self.count + pull * weight.double().T
