"""Repairs: how an output matrix makes up for the units that are gone."""

from trainflat.core.registry import Registry
from trainflat.pruning.structured.repairs.base import Damage, Repair
from trainflat.pruning.structured.repairs.least_squares import LeastSquares
from trainflat.pruning.structured.repairs.none import NoRepair
from trainflat.pruning.structured.repairs.rescale import Rescale

REPAIRS: Registry[Repair] = Registry("repair", none=NoRepair, rescale=Rescale, least_squares=LeastSquares)

__all__ = ["REPAIRS", "Damage", "Repair"]
