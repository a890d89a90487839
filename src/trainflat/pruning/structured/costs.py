"""Counts what the units of a sub-layer cost: parameters, and multiply-adds per position."""

from math import prod
from typing import Any

from torch import Tensor, nn

from trainflat.anatomy import anatomy_of
from trainflat.pruning.structured.sub_layers import SubLayer, layer_path


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters(remove_duplicate=False))


def parameters_per_unit(sub: SubLayer, tensors: dict[str, Tensor]) -> int:
    """Counts the parameters that go with one unit, biases included."""
    return sum(_entries(one.stop - one.start, one.axis, tensors[one.tensor]) for one in sub.units[0].slices)


def multiply_adds_per_unit(sub: SubLayer, tensors: dict[str, Tensor], length: int) -> int:
    """Counts one unit's multiply-adds per position: an entry of a matrix is one, and so is one of scores and values.

    DeBERTa's relative positions, which go through the same matrices once per batch, are not counted.

    Args:
        sub: The sub-layer.
        tensors: The model's parameters by name.
        length: Positions per row, each of which a head compares with all.
    """
    slices = [one for one in sub.units[0].slices if tensors[one.tensor].dim() == 2]
    linear = sum(_entries(one.stop - one.start, one.axis, tensors[one.tensor]) for one in slices)
    if sub.kind == "feed-forward":
        return linear
    queries = next(one for one in slices if one.axis == 0)  # a head's first slice is its queries
    return linear + length * (queries.stop - queries.start + sub.width)


def _entries(count: int, axis: int, tensor: Tensor) -> int:
    return count * prod(size for i, size in enumerate(tensor.shape) if i != axis)


def layer_parameters(model: nn.Module) -> int:
    """Counts all parameters of the layers, LayerNorms and biases included; shared layers once."""
    paths = [layer_path(layer) for layer in anatomy_of(model).layers]
    return sum(p.numel() for path in paths for p in model.get_submodule(path).parameters())


def calls_per_layer(model: Any) -> int:
    """Returns how often each layer of the anatomy is called in one pass: more than once where layers share tensors."""
    layers = anatomy_of(model).layers
    return int(model.config.num_hidden_layers) // len(layers) if layers[0].number is None else 1
