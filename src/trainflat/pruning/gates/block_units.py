"""Cuts the matrices of a model's layers into the units of block movement pruning."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from trainflat.anatomy import FAMILIES, anatomy_of, model_type
from trainflat.anatomy.params import named_weights, prunable, unwrapped
from trainflat.pruning.gates.units import Along, Blocks, Following, MaskGroup, Spread, structure_units

FeedForwardUnit = Literal["dimension", "block"]
Size = tuple[int, int]
Groups = Mapping[str, MaskGroup]


def has_structure(model: nn.Module) -> bool:
    """Returns whether the parts of a model's layers are known."""
    return model_type(unwrapped(model)) in FAMILIES


def block_units(model: nn.Module, size: Size, feed_forward: FeedForwardUnit, biases: bool) -> tuple[Groups, Groups]:
    """Returns the groups of units of all attentions and of all feed-forward sub-layers.

    Args:
        model: Of an unknown architecture all prunable matrices are returned as attentions.
        size: Rows and columns of a block in query, key and value matrices; in output matrices it is exchanged, so that
            a row of the former and a column of the latter, which are one dimension of a head, are cut alike.
        feed_forward: ``"dimension"`` joins a row of the first and the column of the second matrix.
        biases: Whether biases follow the rows of their matrix.
    """
    tensors = named_weights(model, every_name=True)
    blocks = _cutter(tensors, biases)
    if not has_structure(model):
        return {name: blocks(name, size) for name, w in prunable(model).items() if w.dim() == 2}, {}
    anatomy = anatomy_of(unwrapped(model))
    attentions = {
        name: blocks(name, (size[1], size[0]) if kind == "attention_output" else size)
        for layer in anatomy.layers
        for name, kind in layer.attention.matrices()
    }
    if feed_forward == "block":
        names = [name for layer in anatomy.layers for name, _ in layer.feed_forward.matrices()]
        return attentions, {name: blocks(name, size) for name in names}
    groups = structure_units(anatomy.units("feed-forward unit"), tensors)
    return attentions, {key: _followed(group, biases) for key, group in groups.items()}


def entries_of(group: MaskGroup, *, biases: bool = False) -> Tensor:
    """Returns how many entries of matrices, and maybe of biases, each unit has; like the units' scores."""
    members = [one for spreads in group.members.values() for one in spreads if biases or len(one.shape) > 1]
    ones = (one.collect(torch.ones(one.shape, dtype=torch.float64), torch.Size(group.shape)) for one in members)
    return torch.stack([*ones]).sum(0)


def _cutter(tensors: Mapping[str, Tensor], biases: bool) -> Callable[[str, Size], MaskGroup]:
    def blocks(name: str, size: Size) -> MaskGroup:
        cut, bias = Blocks(tuple(tensors[name].shape), size), name.removesuffix("weight") + "bias"
        members: dict[str, tuple[Spread, ...]] = {name: (cut,)}
        if biases and bias in tensors:
            rows = torch.arange(len(tensors[bias])) // size[0]
            members[bias] = (Following(Along(tuple(tensors[bias].shape), 0, rows)),)
        return MaskGroup(cut.counts, members)

    return blocks


def _followed(group: MaskGroup, biases: bool) -> MaskGroup:
    """Has biases follow their units, or leaves them out."""
    members: dict[str, tuple[Spread, ...]] = {}
    for name, spreads in group.members.items():
        if len(spreads[0].shape) > 1:
            members[name] = spreads
        elif biases:
            members[name] = tuple(Following(one) for one in spreads if isinstance(one, Along))
    return MaskGroup(group.shape, members)
