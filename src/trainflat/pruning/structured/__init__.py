"""Structured pruning: removes heads, units, sub-layers, hidden dimensions and words, so that the model is smaller."""

from trainflat.pruning.structured.kept import Kept, KeptLayer, State
from trainflat.pruning.structured.shrink import shrink
from trainflat.pruning.structured.unit_scores import UNIT_SCORES

__all__ = ["UNIT_SCORES", "Kept", "KeptLayer", "State", "shrink"]
