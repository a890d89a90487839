"""Describes what structured pruning left of a model, beside the dense model, for the record."""

import hashlib

from torch import nn

from trainflat.anatomy import anatomy_of
from trainflat.pruning.structured import Kept, KeptLayer
from trainflat.pruning.structured.costs import layer_parameters
from trainflat.pruning.structured.sub_layers import layer_path
from trainflat.records.structure import LayerWidths, Structure


def describe_structure(dense: nn.Module, small: nn.Module, kept: Kept, score: str, repair: str) -> Structure:
    """Counts heads, units and parameters of a shrunk model.

    Args:
        dense: The model that was shrunk.
        small: What came of it.
        kept: What was kept of the dense model.
        score: Name of the score of units.
        repair: Name of the repair.
    """
    first = kept.layers[0]
    return Structure(
        layers=[_widths(layer) for layer in kept.layers],
        heads=len(first.heads),
        units=len(first.units),
        hidden=int(kept.hidden.count_nonzero()),
        dense_hidden=len(kept.hidden),
        vocabulary=int(kept.vocabulary.count_nonzero()),
        dense_vocabulary=len(kept.vocabulary),
        parameters=layer_parameters(small),
        dense_parameters=layer_parameters(dense),
        multiply_adds=_multiply_adds(small) / _multiply_adds(dense),
        kept_sha256=_hash(kept),
        score=score,
        repair=repair,
    )


def _widths(layer: KeptLayer) -> LayerWidths:
    outputs = layer.value_output.view(len(layer.heads), -1).any(1)
    heads = (layer.heads.bool() & outputs).nonzero().flatten().tolist()
    attention, feed_forward = layer.attention_state, layer.feed_forward_state
    return LayerWidths(
        heads=heads if attention == "alive" else [],
        units=int(layer.units.count_nonzero()) if feed_forward == "alive" else 0,
        attention=attention,
        feed_forward=feed_forward,
    )


def _multiply_adds(model: nn.Module) -> int:
    """Counts the entries of the layers' matrices: a multiply-add each per token."""
    paths = dict.fromkeys(layer_path(layer) for layer in anatomy_of(model).layers)
    return sum(p.numel() for path in paths for p in model.get_submodule(path).parameters() if p.dim() == 2)


def _hash(kept: Kept) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(kept.tensors().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
