"""Second moments of what an output matrix reads and should put out: all that least squares need to know of the data."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from trainflat.core.settings import Number
from trainflat.pruning.structured.layerwise import Seen

Ridge = Annotated[float, Number("is a multiple of the mean square of an input, above 0", lambda x: x > 0)]


@dataclass(frozen=True)
class Moments:
    """Means over N positions, in float64.

    Attributes:
        count: N.
        inputs: Mean of x x^T [inputs, inputs].
        cross: Mean of x t^T [inputs, outputs].
        target: Mean of the squared norm of t.
        mean_input: Mean of x [inputs].
        mean_target: Mean of t [outputs].
    """

    count: int
    inputs: Tensor
    cross: Tensor
    target: float
    mean_input: Tensor
    mean_target: Tensor

    @classmethod
    def of(cls, seen: Iterable[Seen]) -> "Moments":
        """Sums up the positions of all batches; their order only changes the rounding."""
        count, total = 0, [torch.zeros(())]
        for one in seen:
            x, t = one.inputs.double(), one.target.double()
            parts = [x.T @ x, x.T @ t, t.square().sum(), x.sum(0), t.sum(0)]
            total = [sums.add_(part) for sums, part in zip(total, parts, strict=True)] if count else parts
            count += len(x)
        inputs, cross, target, x, t = (sums.cpu() / count for sums in total)
        return cls(count, inputs, cross, float(target), x, t)

    def centred(self) -> "Moments":
        """Returns the moments about the means: what is left to a matrix whose bias takes the means' part."""
        x, t = self.mean_input, self.mean_target
        return replace(
            self,
            inputs=self.inputs - torch.outer(x, x),
            cross=self.cross - torch.outer(x, t),
            target=self.target - float(t.square().sum()),
            mean_input=torch.zeros_like(x),
            mean_target=torch.zeros_like(t),
        )

    def error(self, weight: Tensor, bias: Tensor | None) -> float:
        """Returns the mean squared error per position, summed over outputs, of a matrix and a bias."""
        w = weight.double()
        squares = ((w @ self.inputs) * w).sum() - 2 * (w * self.cross.T).sum()
        if bias is not None:
            b = bias.double()
            squares += b @ (b + 2 * (w @ self.mean_input - self.mean_target))
        return float(squares) + self.target

    def ridged(self, weight: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Returns H and C of the loss tr(W H W^T) - 2 tr(W C): the mean squared error, and a pull towards ``weight``.

        Args:
            weight: The dense matrix [outputs, inputs]. Pulled towards it, not towards 0, columns that the data says
                little of stay as they were.
            ridge: Strength of the pull, as a multiple of the mean square of an input.
        """
        # Well above rounding even where all inputs are constant, so that there is always a solution.
        pull = ridge * max(float(self.inputs.diagonal().mean()), 1e-8)
        identity = torch.eye(len(self.inputs), dtype=torch.float64)
        return self.inputs + pull * identity, self.cross + pull * weight.double().T
