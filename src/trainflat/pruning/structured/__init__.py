"""Structured pruning: removes heads, units, sub-layers, hidden dimensions and words, so that the model is smaller."""

from trainflat.pruning.structured.budgets import Budget, Latency, MultiplyAdds, Parameters
from trainflat.pruning.structured.constants import fold_constants, units_left
from trainflat.pruning.structured.counting import Counts, count
from trainflat.pruning.structured.fill import fill_zeros
from trainflat.pruning.structured.kept import Kept, KeptLayer, State
from trainflat.pruning.structured.latency import LatencyTable, latency_table, measure_table
from trainflat.pruning.structured.prune import Pruned, SubLayerNote, prune_structure
from trainflat.pruning.structured.repairs import REPAIRS
from trainflat.pruning.structured.shrink import shrink
from trainflat.pruning.structured.unit_scores import UNIT_SCORES
from trainflat.pruning.structured.widths import OutOfReach, check_reach

__all__ = [
    "REPAIRS",
    "UNIT_SCORES",
    "Budget",
    "Counts",
    "Kept",
    "KeptLayer",
    "Latency",
    "LatencyTable",
    "MultiplyAdds",
    "OutOfReach",
    "Parameters",
    "Pruned",
    "State",
    "SubLayerNote",
    "check_reach",
    "count",
    "fill_zeros",
    "fold_constants",
    "latency_table",
    "measure_table",
    "prune_structure",
    "shrink",
    "units_left",
]
