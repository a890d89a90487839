"""Describes the stages of a run: as they are planned, and as they come out."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor
from transformers import PreTrainedModel

from trainflat.core.errors import InputError
from trainflat.protocols.phases import Phase
from trainflat.pruning import Masks
from trainflat.quantization import Q8BERT
from trainflat.records.run import Training
from trainflat.records.structure import Structure


@dataclass(frozen=True)
class Planned:
    """Announces a stage; ``trainflat check`` prints it."""

    name: str  # also its folder
    sparsity: float
    trained: bool
    open: bool = False  # a penalty decides how sparse it gets; then `sparsity` is 0
    handed_on: bool = False  # a later training goes on from it, with the maps of layerwise distillation if there are
    phase: Phase = field(default_factory=Phase, compare=False)  # how it is trained otherwise than the recipe says


@dataclass(frozen=True)
class Produced:
    """Holds a stage's model, of a shape of its own, and how it came about.

    Attributes:
        quantizer: Of ``model``, with the ranges from which its int8 copy is made; after quantization-aware training.
        structure: What is left of the dense model's, if less.
        predicted_seconds: Of a forward pass, by the table of times that the structure was chosen by.
        maps: Of layerwise distillation, from ``model``'s hidden states; a later training goes on with them.
        products: What the training's features left, by key; not kept on disk.
    """

    plan: Planned
    model: PreTrainedModel
    masks: Masks | None = None
    training: Training | None = None
    seconds: float = 0.0
    quantizer: Q8BERT | None = None
    structure: Structure | None = None
    predicted_seconds: float | None = None
    maps: Mapping[str, Tensor] | None = None
    products: Mapping[str, Any] = field(default_factory=dict)

    def copied(self, plan: Planned) -> Self:
        """Copies model and quantizer for another stage, which is not trained."""
        model, quantizer = copy.deepcopy((self.model, self.quantizer))  # together, for one refers to the other
        return replace(self, plan=plan, model=model, quantizer=quantizer, training=None, seconds=0.0)


def stage_name(sparsity: float) -> str:
    """Names a stage ``dense`` or ``sparsity-0.30``; with more digits, up to ten, where two are not enough."""
    if sparsity == 0:
        return "dense"
    text = f"{sparsity:.10f}".rstrip("0")
    whole, digits = text.split(".")
    return f"sparsity-{whole}.{digits.ljust(2, '0')}"


def check_sparsities(sparsities: Sequence[float]) -> tuple[float, ...]:
    """Checks that shares ascend between 0 and 1 and differ in their first ten decimals, as the names of stages do.

    Raises:
        InputError: names the first that is not.
    """
    before, taken = 0.0, {"dense", stage_name(1e-11), stage_name(1.0)}  # 1e-11 is written as 0
    for sparsity in sparsities:
        if not 0 < sparsity < 1:
            raise InputError(f"protocol sparsities are shares in (0, 1), got {sparsity}. Half of the weights is 0.5.")
        if sparsity <= before:
            raise InputError(f"protocol sparsities are ascending, got {sparsity} after {before}. Order them.")
        if stage_name(sparsity) in taken:
            raise InputError(
                f"protocol sparsities differ in their first ten decimals, got {sparsity} after {before}. Leave one out."
            )
        before = sparsity
        taken.add(stage_name(sparsity))
    if not sparsities:
        raise InputError("protocol sparsities are empty. Name at least one share, such as [0.5].")
    return tuple(float(s) for s in sparsities)
