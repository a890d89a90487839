"""Random choices of what is kept of a model."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainflat.anatomy import anatomy_of, layout_of
from trainflat.pruning.structured import Kept, KeptLayer

KINDS = ("heads", "query_key", "value_output", "units", "hidden", "sublayers")


def pattern(model: Any, seed: int, share: float, kinds: tuple[str, ...] = KINDS, *, soft: bool = True) -> Kept:
    """Keeps about a share of the units of some kinds, softly or whole; the vocabulary stays."""
    anatomy, draw = anatomy_of(model), torch.Generator().manual_seed(seed)
    kept = Kept.all(anatomy)

    def some(ones: Tensor) -> Tensor:
        gone = torch.rand(len(ones), generator=draw) >= share
        factors = torch.rand(len(ones), generator=draw, dtype=torch.float64) * 1.5 + 0.2
        return (factors if soft else ones).masked_fill(gone, 0.0)

    def whole() -> float:
        number = float(torch.rand(1, generator=draw))
        return 0.0 if number > share else number + 0.5 if soft else 1.0

    def layer(own: KeptLayer) -> KeptLayer:
        names = [name for name in ("heads", "query_key", "value_output", "units") if name in kinds]
        if layout_of(model).rotary:
            names = [name for name in names if name != "query_key"]
        own = replace(own, **{name: some(getattr(own, name)) for name in names})
        return replace(own, attention=whole(), feed_forward=whole()) if "sublayers" in kinds else own

    kept = replace(kept, layers=tuple(map(layer, kept.layers)))
    if "hidden" in kinds:
        hidden = some(kept.hidden)
        kept = replace(kept, hidden=hidden if hidden.any() else kept.hidden)
    return kept
