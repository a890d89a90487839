"""A flat optimizer."""

from typing import Annotated

from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.perturbation import Perturbation, steepest_ascent


class ToyOptimizer(FlatOptimizer):
    """Climbs as SAM does, but further."""

    further: Annotated[float, Number("is a factor > 0", lambda x: x > 0)] = 2.0

    def perturbation(self) -> Perturbation:
        return steepest_ascent([(self.further * rho, params) for rho, params in self.perturbable()])
