"""Records what structured pruning left of a model."""

from typing import Annotated, Literal

from pydantic import Field

from trainflat.records.base import Data, added_later

Count = Annotated[int, Field(ge=0)]


class LayerWidths(Data):
    """What is left of one layer; an empty sub-layer that is not skipped still adds its bias."""

    heads: list[Count]  # numbers of those that are left, in the dense model's count
    units: Count
    attention: Literal["alive", "bias-only", "skipped"] = "alive"
    feed_forward: Literal["alive", "bias-only", "skipped"] = "alive"


class Repaired(Data):
    """What the repair of one sub-layer did: mean squared errors per position of its output, None where none ran."""

    sub_layer: str  # such as "attention 3"
    repair: str  # that holds; "none" where the one asked for would have raised the error
    before: float | None
    after: float | None


class Structure(Data):
    """The shape of a structurally pruned model, beside the dense model's.

    Parameters are the layers': weights, biases and LayerNorms, without embeddings, pooler and task head. Multiply-adds
    are of one token's matrix products in the layers, so without attention's products of tokens, which lengths decide.
    """

    layers: list[LayerWidths]
    heads: Count  # per layer, of the dense model
    units: Count
    hidden: Count  # what is left of them
    dense_hidden: Count
    vocabulary: Count
    dense_vocabulary: Count
    parameters: Count
    dense_parameters: Count
    multiply_adds: float  # share of the dense model's
    kept_sha256: str  # of every factor, also those of units
    score: str = ""  # by which units went
    repair: str = ""
    predicted_loss: float | None = added_later(None)  # rise of the loss that the score predicted
    repairs: list[Repaired] = added_later([])

    @property
    def sparsity(self) -> float:
        """Returns the share of the layers' parameters that is gone."""
        return 1 - self.parameters / self.dense_parameters if self.dense_parameters else 0.0

    @property
    def error_left(self) -> float | None:
        """Returns the share of the sub-layers' errors that the repairs left; None where there was nothing to repair."""
        before = sum(one.before or 0.0 for one in self.repairs)
        return sum(one.after or 0.0 for one in self.repairs) / before if before else None
