"""GRAIN written by hand for BERT, unit by unit in plain numbers, on nothing but formulas."""

import math
from typing import Any

import torch
from torch import Tensor

NAMES = {"unit": "feed-forward unit", "vo": "value-output dimension", "qk": "query-key dimension"}
Units = dict[tuple[str, int, int], float]
"""A number by kind, layer and unit."""


def layers_of(model: Any) -> Any:
    return model.base_model.encoder.layer


@torch.no_grad()
def importances(model: Any, grads: dict[str, Tensor]) -> Units:
    """|sum of weight times gradient| of each unit, from gradients of the weights by name."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: Units = {}
    for number, layer in enumerate(layers_of(model)):
        query, value = layer.attention.self.query, layer.attention.output.dense
        for i, row in enumerate(query.weight):
            total = (row * grads[names[id(query.weight)]][i]).sum() + query.bias[i] * grads[names[id(query.bias)]][i]
            found["qk", number, i] = abs(float(total))
        for kind, matrix in (("vo", value.weight), ("unit", layer.output.dense.weight)):
            for i in range(matrix.shape[1]):
                found[kind, number, i] = abs(float((matrix[:, i] * grads[names[id(matrix)]][:, i]).sum()))
    return found


class GrainByHand:
    """Running scores, and the units that are gone, by a list that is sorted anew each time."""

    def __init__(self, model: Any, alpha: float = 0.3, decay: float = 0.998) -> None:
        self.model, self.alpha, self.decay = model, alpha, decay
        self.width, self.heads = model.config.hidden_size, model.config.num_attention_heads
        self.scores: Units = dict.fromkeys(self._all(), 0.0)
        self.gone: set[tuple[str, int, int]] = set()

    def _all(self) -> list[tuple[str, int, int]]:
        sizes = {"unit": self.model.config.intermediate_size, "vo": self.width, "qk": self.width}
        layers = range(self.model.config.num_hidden_layers)
        return [(kind, layer, i) for kind, size in sizes.items() for layer in layers for i in range(size)]

    def density(self, kind: str, layer: int, units: list[int]) -> float:
        return sum((kind, layer, i) not in self.gone for i in units) / len(units)

    def head(self, i: int) -> list[int]:
        size = self.width // self.heads
        return [*range(i // size * size, (i // size + 1) * size)]

    def observe(self, found: Units) -> None:
        for (kind, layer, i), value in found.items():
            units = [j for k, own, j in self._all() if (k, own) == (kind, layer)]
            factor = 1.0
            if kind != "qk":
                factor *= math.tanh(self.density(kind, layer, units) / 1e-4)
            if kind == "vo":
                factor *= math.tanh(self.density("vo", layer, self.head(i)) / self.alpha)
            self.scores[kind, layer, i] = self.decay * self.scores[kind, layer, i] + (1 - self.decay) * factor * value

    def size(self, unit: tuple[str, int, int]) -> int:
        return 2 * self.width + (2 if unit[0] == "qk" else 1)

    def drop(self, share: float) -> None:
        wanted = share * sum(self.size(unit) for unit in self.scores)
        ranked = sorted(self.scores, key=lambda unit: (unit not in self.gone, self.scores[unit]))
        spent = 0
        for unit in ranked:
            if spent >= wanted:
                break
            spent += self.size(unit)
            self.gone.add(unit)
        for layer in range(self.model.config.num_hidden_layers):
            for i in range(self.width):
                if all(("vo", layer, j) in self.gone for j in self.head(i)):
                    self.gone.add(("qk", layer, i))

    def zero(self, gradients: bool = False) -> None:
        """Sets all tensors of what is gone to 0, or their gradients."""
        with torch.no_grad():
            for kind, number, i in self.gone:
                layer = layers_of(self.model)[number]
                own, out = layer.attention.self, layer.attention.output.dense
                rows = {"qk": [own.query, own.key], "vo": [own.value], "unit": [layer.intermediate.dense]}[kind]
                columns = {"qk": [], "vo": [out.weight], "unit": [layer.output.dense.weight]}[kind]
                for p in (*(p for one in rows for p in one.parameters()), *columns):
                    tensor = p.grad if gradients else p
                    (tensor[:, i] if any(p is c for c in columns) else tensor[i]).zero_()
