"""The interface of a repair: what becomes of a sub-layer's output matrix when some of its units are gone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from trainflat.pruning.structured.moments import Moments


@dataclass(frozen=True)
class Damage:
    """Describes an output matrix of which columns are to go; everything in float64.

    Attributes:
        weight: The dense matrix [outputs, inputs].
        bias: The dense bias [outputs], or None.
        kept: Which columns stay [inputs], boolean.
        width: Columns per unit.
        moments: Of what the matrix reads and should put out, in the model that is pruned and repaired up to here.
    """

    weight: Tensor
    bias: Tensor | None
    kept: Tensor
    width: int
    moments: Moments

    def masked(self) -> Tensor:
        return self.weight * self.kept


class Repair(ABC):
    """Mends output matrices one after the other, in forward order. One instance repairs one model, once."""

    looks: bool = True
    """Whether it looks at moments, which cost passes over the calibration rows."""

    @abstractmethod
    def repaired(self, damage: Damage) -> tuple[Tensor, Tensor | None]:
        """Returns matrix and bias in float64; columns that are gone are 0, and a bias is returned if there was one."""
