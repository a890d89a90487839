"""Collects which entries of a model's tensors are kept and by what they are multiplied, and makes the new tensors."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from trainflat.anatomy import Linear, Slice


class Cuts:
    """Holds for each tensor and axis the entries that are kept, in their new order, with factors in float64.

    A factor of 0 makes an entry of padding, whatever it was. Tensors that are not named stay as they are.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
        self._scales: dict[str, float] = {}
        self._gone: set[str] = set()

    def take(self, spans: Iterable[Slice], index: Tensor, factors: Tensor) -> None:
        """Keeps entries of slices, by their number within a slice; slices of a fused tensor are put side by side."""
        for one in spans:
            self._kept[one.tensor, one.axis].append((one.start, index, factors))

    def scale(self, spans: Iterable[Slice], factor: float) -> None:
        """Multiplies whole tensors."""
        self._scales |= {one.tensor: factor for one in spans}

    def drop(self, linears: Iterable[Linear], *, biases: bool = True) -> None:
        """Leaves the tensors of linear layers out; their biases only if asked."""
        for one in linears:
            self._gone |= {one.weight, *([one.bias] if biases and one.bias else [])}

    def drop_named(self, names: Iterable[str]) -> None:
        """Leaves tensors out."""
        self._gone |= set(names)

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns new tensors, in their old types, on the CPU; multiplied and summed nowhere, so rounded once."""
        return {name: self._new(name, tensor) for name, tensor in tensors.items() if name not in self._gone}

    def _new(self, name: str, tensor: Tensor) -> Tensor:
        result = tensor.detach().cpu().clone()
        if name in self._scales:
            result = result.double() * self._scales[name]
        for axis in range(tensor.dim()):
            parts = sorted(self._kept.get((name, axis), ()), key=lambda part: part[0])
            if parts:
                index = torch.cat([start + one for start, one, _ in parts])
                shape = [-1 if other == axis else 1 for other in range(tensor.dim())]
                factors = torch.cat([factors for *_, factors in parts]).view(shape)
                result = result.double().index_select(axis, index) * factors
        return result.to(tensor.dtype)
