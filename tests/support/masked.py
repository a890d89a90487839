"""A slow reference of a shrunk model: the dense one, with hooks that multiply by each unit's factor as it runs.

It knows modules by name and no slices, so it shares nothing with the shrinker but the layout's names.
"""

import copy
import re
from typing import Any

from torch import Tensor, nn

from trainflat.anatomy import anatomy_of, layout_of
from trainflat.pruning.structured import Kept, KeptLayer


def norm_over(module: nn.LayerNorm, factors: Tensor) -> None:
    """Has a LayerNorm see the dimensions whose factor is not 0, and multiplies its output by the factors."""
    kept = (factors != 0).to(factors)

    def forward(x: Tensor) -> Tensor:
        n = kept.sum()
        mean = (x * kept).sum(-1, keepdim=True) / n
        variance = ((x - mean).square() * kept).sum(-1, keepdim=True) / n
        y = (x - mean) / (variance + module.eps).sqrt() * module.weight
        return factors * (y if module.bias is None else y + module.bias)

    module.forward = forward  # type: ignore[method-assign]


def masked(model: Any, kept: Kept) -> Any:
    """A copy that computes what the model does with its units multiplied by their factors."""
    silent = copy.deepcopy(model)
    layout, anatomy = layout_of(silent), anatomy_of(silent)
    encoder = silent.base_model
    hidden = kept.hidden.to(model.dtype)
    paths = dict(encoder.named_modules())
    projected = layout.projection != "" and layout.projection in paths
    for path, axis in ({layout.projection: 0} if projected else layout.embeddings).items():
        _multiply_embedding(encoder, path, axis, hidden)
    for path in () if projected else layout.norms:
        if path in paths:
            norm_over(paths[path], hidden)
    pattern = re.escape(layout.layer).replace(r"\#", r"\d+")
    layers = [module for path, module in paths.items() if re.fullmatch(pattern, path)]
    for layer, own, part in zip(layers, kept.layers, anatomy.layers, strict=True):
        _multiply_layer(layer, layout, own, hidden, part.attention.heads)
    return silent


def _multiply_embedding(encoder: nn.Module, path: str, axis: int, hidden: Tensor) -> None:
    owner, _, name = path.rpartition(".")
    found = getattr(encoder.get_submodule(owner), name, None)
    if isinstance(found, nn.Parameter):
        found.data *= hidden
    elif isinstance(found, nn.Embedding) and not hidden.requires_grad:
        found.weight.data *= hidden
    elif isinstance(found, nn.Conv2d):
        found.register_forward_hook(lambda module, inputs, out: out * hidden[:, None, None])
    elif found is not None:
        found.register_forward_hook(lambda module, inputs, out: out * hidden)


def _multiply_layer(layer: Any, layout: Any, own: KeptLayer, hidden: Tensor, heads: int) -> None:
    modules = dict(layer.named_modules())
    values = own.value_output.view(heads, -1) * own.heads[:, None]
    sides = (
        (layout.attention_output, layout.attention_norm, values.flatten(), own.attention),
        (layout.ffn_out, layout.ffn_norm, own.units, own.feed_forward),
    )
    for output, norm, factors, whole in sides:
        inner = factors.to(hidden.dtype)
        modules[output].register_forward_pre_hook(lambda module, inputs, inner=inner: (inputs[0] * inner,))
        modules[output].register_forward_hook(lambda module, inputs, out, whole=whole: out * whole * hidden)
        if isinstance(modules[norm], nn.LayerNorm):
            if whole == 0 and not layout.pre_norm:  # skipped: the residual passes on, without its LayerNorm
                modules[norm].forward = lambda x: x
            else:
                norm_over(modules[norm], hidden)
    scores = own.query_key.to(hidden.dtype)
    for part in layout.query:
        if part.of == 1 and part.module in modules:
            modules[part.module].register_forward_hook(lambda module, inputs, out: out * scores)
