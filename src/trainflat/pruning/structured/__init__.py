"""Structured pruning: removes heads, units, sub-layers, hidden dimensions and words, so that the model is smaller."""

from trainflat.pruning.structured.budgets import Budget, MultiplyAdds, Parameters
from trainflat.pruning.structured.kept import Kept, KeptLayer, State
from trainflat.pruning.structured.prune import Pruned, SubLayerNote, prune_structure
from trainflat.pruning.structured.repairs import REPAIRS
from trainflat.pruning.structured.shrink import shrink
from trainflat.pruning.structured.unit_scores import UNIT_SCORES

__all__ = [
    "REPAIRS",
    "UNIT_SCORES",
    "Budget",
    "Kept",
    "KeptLayer",
    "MultiplyAdds",
    "Parameters",
    "Pruned",
    "State",
    "SubLayerNote",
    "prune_structure",
    "shrink",
]
