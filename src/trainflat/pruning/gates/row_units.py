"""Heads and rows of a model's matrices as units, with the sizes of the matrices that they shrink."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from trainflat.anatomy import FAMILIES, Layer, Linear, Unit, anatomy_of, model_type
from trainflat.anatomy.params import named_weights, prunable, unwrapped
from trainflat.pruning.gates.units import Along, Following, MaskGroup, Spread, structure_units

Part = tuple[int, tuple[str, ...]]
"""A number of entries, with the names of the groups of units that they shrink by."""


def row_units(model: nn.Module) -> tuple[dict[str, MaskGroup], list[Part]]:
    """Returns heads, feed-forward units and rows of the output matrices of each layer, and what they shrink.

    A head is rows of query, key and value matrices, with their biases. Columns behind heads and units follow these. Of
    a model of unknown architecture they are the rows of each prunable matrix.
    """
    tensors = named_weights(model, every_name=True)
    if model_type(unwrapped(model)) not in FAMILIES:
        linears = [_linear(name, w, tensors) for name, w in prunable(model).items() if w.dim() == 2]
        units = [unit for one in linears for unit in _rows(one.weight, None, one)]
        return structure_units(units, tensors), [(one.outputs * one.inputs, (one.weight,)) for one in linears]
    anatomy = anatomy_of(unwrapped(model))
    units = [*anatomy.units("head"), *anatomy.units("feed-forward unit")]
    for layer in anatomy.layers:
        for kind, part in (("attention", layer.attention), ("feed-forward", layer.feed_forward)):
            if part.output.has_weight:
                units += _rows(f"{kind} output", layer.number, part.output)
    groups = {name: _columns_follow(group) for name, group in structure_units(units, tensors).items()}
    return groups, [part for layer in anatomy.layers for part in _parts(layer)]


def _linear(name: str, weight: Tensor, tensors: Mapping[str, Tensor]) -> Linear:
    bias = name.removesuffix("weight") + "bias"
    return Linear(name, bias if bias in tensors else None, 0, *weight.shape)


def _rows(kind: str, layer: int | None, one: Linear) -> Iterator[Unit]:
    for i in range(one.outputs):
        yield Unit(kind, layer, i, one.rows(i, i + 1))


def _columns_follow(group: MaskGroup) -> MaskGroup:
    members: dict[str, tuple[Spread, ...]] = {}
    for name, spreads in group.members.items():
        members[name] = tuple(Following(one) if isinstance(one, Along) and one.axis else one for one in spreads)
    return MaskGroup(group.shape, members)


def _parts(layer: Layer) -> Iterator[Part]:
    a, f = layer.attention, layer.feed_forward
    sides = (
        ("attention output", "head", (*a.query, *a.key, a.value), a),
        ("feed-forward output", "feed-forward unit", f.inputs, f),
    )
    for output, inner, inputs, part in sides:
        names = tuple(kind if layer.number is None else f"{kind} {layer.number}" for kind in (inner, output))
        if part.output.has_weight:
            yield sum(one.outputs * one.inputs for one in inputs), names[:1]
            yield part.output.outputs * part.output.inputs, names
