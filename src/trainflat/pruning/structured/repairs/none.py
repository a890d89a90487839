"""No repair: what is left of the output matrix stays as it is."""

from torch import Tensor

from trainflat.pruning.structured.repairs.base import Damage, Repair


class NoRepair(Repair):
    """Only zeroes the columns of the units that are dropped."""

    looks = False

    def repaired(self, damage: Damage) -> tuple[Tensor, Tensor | None]:
        return damage.masked(), damage.bias
