"""Scores of units: what the loss would rise by without some heads or feed-forward units of a sub-layer."""

from trainflat.core.registry import Registry
from trainflat.pruning.structured.unit_scores.base import RankedOnce, Ranking, UnitInputs, UnitScore
from trainflat.pruning.structured.unit_scores.fisher import FisherUnits
from trainflat.pruning.structured.unit_scores.kprune import KpruneUnits
from trainflat.pruning.structured.unit_scores.magnitude import MagnitudeUnits
from trainflat.pruning.structured.unit_scores.obs import ObsUnits
from trainflat.pruning.structured.unit_scores.random import RandomUnits
from trainflat.pruning.structured.unit_scores.taylor import TaylorUnits
from trainflat.pruning.structured.unit_scores.wanda import WandaUnits

UNIT_SCORES: Registry[UnitScore] = Registry(
    "score of units",
    magnitude=MagnitudeUnits,
    random=RandomUnits,
    taylor=TaylorUnits,
    wanda=WandaUnits,
    fisher=FisherUnits,
    kprune=KpruneUnits,
    obs=ObsUnits,
)

__all__ = ["UNIT_SCORES", "RankedOnce", "Ranking", "UnitInputs", "UnitScore"]
