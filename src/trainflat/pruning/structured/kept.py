"""Holds which heads, dimensions, units, sub-layers, hidden dimensions and words of a model are kept."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from trainflat.anatomy import Anatomy, Unit
from trainflat.core.errors import DamagedFile
from trainflat.core.files import load_tensors, save_tensors

State = Literal["alive", "bias-only", "skipped"]
"""What is left of a sub-layer: units; its output's bias and its LayerNorm; or nothing, so that its input passes on."""


@dataclass(frozen=True)
class KeptLayer:
    """Holds a factor for each unit of one layer: 0 drops it, 1 keeps it, others scale it (soft gates).

    Attributes:
        heads: [heads].
        query_key: Dimensions that queries and keys are compared in, [heads * their size].
        value_output: Dimensions of the heads' outputs, [heads * their size].
        units: Feed-forward units [units].
        attention: Of the whole sub-layer, its output's bias included.
        feed_forward: Of the other one.
    """

    heads: Tensor
    query_key: Tensor
    value_output: Tensor
    units: Tensor
    attention: float = 1.0
    feed_forward: float = 1.0

    @property
    def attention_state(self) -> State:
        """Returns the state of the attention: empty, its bias and LayerNorm still act; skipped, nothing does."""
        return _state(self.attention, bool(self.kept_heads()))

    @property
    def feed_forward_state(self) -> State:
        """Returns the state of the feed-forward sub-layer."""
        return _state(self.feed_forward, bool(self.units.any()))

    def kept_heads(self) -> tuple[int, ...]:
        """Returns the numbers of the heads that add anything to the sub-layer's output."""
        # A head needs none of its query-key dimensions: without them it attends to all positions alike.
        values = self._per_head(self.value_output).any(1)
        return tuple(j for j in range(len(self.heads)) if self.heads[j] != 0 and values[j])

    def widest_head(self) -> int:
        """Returns the most dimensions that a kept head has left, of either kind."""
        sides = [self._per_head(one).count_nonzero(1) for one in (self.query_key, self.value_output)]
        return max((int(side[j]) for side in sides for j in self.kept_heads()), default=0)

    def _per_head(self, values: Tensor) -> Tensor:
        heads = len(self.heads)
        return values.view(heads, len(values) // max(heads, 1))


def _state(factor: float, inhabited: bool) -> State:
    if factor == 0:
        return "skipped"
    return "alive" if inhabited else "bias-only"


@dataclass(frozen=True)
class Kept:
    """Holds what is kept of a model's structure, as factors of its units; all in float64.

    Attributes:
        layers: In the order in which they run; one for all where layers share their tensors (ALBERT).
        hidden: Hidden dimensions [hidden size]; LayerNorms run over those that are not 0.
        vocabulary: Rows of the word embeddings [vocabulary]; empty for a model that reads no words.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from trainflat.anatomy import anatomy_of
        >>> sizes = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6, vocab_size=9)
        >>> anatomy = anatomy_of(BertModel(BertConfig(**sizes)))
        >>> kept = Kept.all(anatomy).without([anatomy.units("head")[1], *anatomy.units("feed-forward unit")[2:]])
        >>> kept.layers[0].heads.tolist(), int(kept.layers[0].units.count_nonzero())
        ([1.0, 0.0], 2)
    """

    layers: tuple[KeptLayer, ...]
    hidden: Tensor
    vocabulary: Tensor

    @classmethod
    def all(cls, anatomy: Anatomy) -> Self:
        """Keeps everything."""
        layers = []
        for layer in anatomy.layers:
            a, f = layer.attention, layer.feed_forward
            sizes = (a.heads, a.query[0].outputs, a.value.outputs, f.output.inputs)
            heads, query_key, value_output, units = map(_ones, sizes)
            layers.append(KeptLayer(heads, query_key, value_output, units))
        return cls(tuple(layers), _ones(anatomy.hidden_size), _ones(anatomy.vocabulary))

    def without(self, units: Iterable[Unit]) -> Self:
        """Drops units of an anatomy, of any kinds."""
        return self.scaled((unit, 0.0) for unit in units)

    def scaled(self, factors: Iterable[tuple[Unit, float]]) -> Self:
        """Multiplies the factors of units by others; a whole layer's factor multiplies both of its sub-layers."""
        layers = [_copied(layer) for layer in self.layers]
        hidden, vocabulary = self.hidden.clone(), self.vocabulary.clone()
        for unit, factor in factors:
            if unit.kind == "hidden dimension":
                hidden[unit.index] *= factor
            elif unit.kind == "vocabulary entry":
                vocabulary[unit.index] *= factor
            else:
                place = unit.layer or 0  # None where all layers share their tensors, which are listed once
                layers[place] = _SCALED[unit.kind](layers[place], unit.index, factor)
        return replace(self, layers=tuple(layers), hidden=hidden, vocabulary=vocabulary)

    def tensors(self) -> dict[str, Tensor]:
        """Returns all factors by name, as they are written to a file."""
        named = {"hidden": self.hidden, "vocabulary": self.vocabulary}
        for number, layer in enumerate(self.layers):
            for name, value in vars(layer).items():
                named[f"{number}.{name}"] = torch.as_tensor(value, dtype=torch.float64)
        return named

    def save(self, path: Path) -> None:
        """Writes a safetensors file, atomically."""
        save_tensors(path, self.tensors())

    @classmethod
    def load(cls, path: Path, anatomy: Anatomy) -> Self:
        """Reads what :meth:`save` wrote for a model of this anatomy.

        Raises:
            DamagedFile: the file cannot be read, or is of another shape; names the first tensor that is.
        """
        found, expected = load_tensors(path)[0], cls.all(anatomy).tensors()
        for name, tensor in expected.items():
            shape = None if name not in found else tuple(found[name].shape)
            if shape != tuple(tensor.shape):
                raise DamagedFile(f"{path}: {name} is {shape or 'missing'}, of this model {tuple(tensor.shape)}.")
        layers = []
        for number in range(len(anatomy.layers)):
            own: dict[str, Any] = {name: found[f"{number}.{name}"].double() for name in KeptLayer.__dataclass_fields__}
            layers.append(KeptLayer(**own | {name: float(own[name]) for name in ("attention", "feed_forward")}))
        return cls(tuple(layers), found["hidden"].double(), found["vocabulary"].double())


def _ones(size: int) -> Tensor:
    return torch.ones(size, dtype=torch.float64)


def _copied(layer: KeptLayer) -> KeptLayer:
    own = layer.heads.clone(), layer.query_key.clone(), layer.value_output.clone(), layer.units.clone()
    return KeptLayer(*own, layer.attention, layer.feed_forward)


def _entry(name: str) -> Callable[[KeptLayer, int, float], KeptLayer]:
    def scale(layer: KeptLayer, index: int, factor: float) -> KeptLayer:
        getattr(layer, name)[index] *= factor  # of a copy: `scaled` made it
        return layer

    return scale


def _whole(*names: str) -> Callable[[KeptLayer, int, float], KeptLayer]:
    def scale(layer: KeptLayer, _: int, factor: float) -> KeptLayer:
        return replace(layer, **{name: getattr(layer, name) * factor for name in names})

    return scale


_SCALED: dict[str, Callable[[KeptLayer, int, float], KeptLayer]] = {
    "head": _entry("heads"),
    "query-key dimension": _entry("query_key"),
    "value-output dimension": _entry("value_output"),
    "feed-forward unit": _entry("units"),
    "attention sub-layer": _whole("attention"),
    "feed-forward sub-layer": _whole("feed_forward"),
    "layer": _whole("attention", "feed_forward"),
}
