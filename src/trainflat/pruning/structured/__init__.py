"""Structured pruning: removes heads, units, sub-layers, hidden dimensions and words, so that the model is smaller."""

from trainflat.pruning.structured.kept import Kept, KeptLayer, State

__all__ = ["Kept", "KeptLayer", "State"]
