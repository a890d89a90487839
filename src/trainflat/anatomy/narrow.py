"""Builds encoders of transformers whose layers differ in width, and reads their widths from config.json."""

# Imports torch alone: the text of this file is written beside a shrunk model's weights, where it builds the model for
# people who have not installed trainflat.

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

CODE_FILE = "modeling_trainflat.py"
SKIP = {"attention": "num_attention_heads", "mlp": "intermediate_size"}  # transformers' names of the two sub-layers
_WIDTHS = ("num_attention_heads", "head_dim", "intermediate_size")
# Attributes in which the attention modules of transformers keep their sizes, and modules of torch theirs.
_HEADS, _HEAD_SIZE = ("num_attention_heads", "n_heads", "num_heads"), ("attention_head_size", "head_dim")
_SIZES = ("out_features", "out_channels", "width"), ("in_features", "embedding_dim")


class ShrunkConfig:
    """Adds the widths of each layer to a config class of transformers.

    Attributes:
        per_layer_config: What differs from the config's own numbers, by number of the layer, in transformers' form:
            ``{"0": {"num_attention_heads": 7, "head_dim": 32}, "3": {"skip": ["attention"], ...}}``. No heads or no
            feed-forward units leave the output's bias; a skipped sub-layer leaves nothing. Plain data: transformers'
            property of this name raises where ``config.num_attention_heads`` is read.
        hidden_size: Width of the hidden states.
        dense_hidden_size: Their width before shrinking, which poolers and heads keep for what they compute.
        head_dim: Size of the heads before shrinking.
        position_heads: Columns of the table of positions that a layer's heads read, by number of the layer; for layers
            that lost heads, where all layers share a table with a column for each head (MPNet).
        names: Names of the architecture's modules, as ``trainflat.anatomy.Layout.names`` gives them.
        code: Text of ``modeling_trainflat.py``.
    """

    names: ClassVar[Mapping[str, Any]] = {}
    code: ClassVar[str] = ""
    per_layer_config = None

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        """Writes config.json, and the file that builds the model where trainflat is not installed."""
        super().save_pretrained(save_directory, **options)  # type: ignore[misc]  # of transformers' config
        if self.code:
            Path(save_directory, CODE_FILE).write_text(self.code, encoding="utf8")

    def layer(self, number: int) -> dict[str, Any]:
        """Returns the widths of one layer, and the sub-layers that it skips.

        Raises:
            ValueError: they are not what this version writes; names the first that is not.
        """
        layers: Any = self.per_layer_config or {}
        if not isinstance(layers, dict) or not all(isinstance(own, dict) for own in layers.values()):
            raise ValueError("per_layer_config is not a mapping of layers to widths")
        own: Any = next((own for key, own in layers.items() if str(key).isdecimal() and int(key) == number), {})
        unknown = sorted(set(own) - {*_WIDTHS, "skip"})
        if unknown:
            raise ValueError(f"layer {number} of per_layer_config has {unknown[0]!r}, which this version cannot build")
        dense = {name: getattr(self, name, None) for name in _WIDTHS}
        dense["intermediate_size"] = getattr(self, self.names["intermediate"], None)  # DistilBERT's hidden_dim
        found = {name: own.get(name, dense[name]) for name in _WIDTHS}
        for name, width in found.items():
            if type(width) is not int or width < (name == "head_dim"):
                raise ValueError(f"layer {number} of per_layer_config has the {name} {width!r:.40}")
        skip = own.get("skip", [])
        if not isinstance(skip, list) or not all(isinstance(one, str) and one in SKIP for one in skip):
            raise ValueError(f"layer {number} of per_layer_config skips {skip!r:.40}; known are {', '.join(SKIP)}")
        return {**found, **dict.fromkeys((SKIP[one] for one in skip), 0), "skip": skip}

    def columns(self, number: int) -> list[int] | None:
        """Returns the columns of the table of positions that a layer's heads read; None for all.

        Raises:
            ValueError: they are no list of numbers.
        """
        table = getattr(self, "position_heads", None) or {}
        columns = table.get(str(number)) if isinstance(table, dict) else table
        if columns is not None and not (isinstance(columns, list) and all(type(one) is int for one in columns)):
            raise ValueError(f"position_heads of layer {number} is {columns!r:.40}")
        return columns


class ShrunkModel:
    """Builds a model class of transformers with the widths of a :class:`ShrunkConfig`."""

    def __init__(self, config: Any, *inputs: Any, **options: Any) -> None:
        width, dense = config.hidden_size, getattr(config, "dense_hidden_size", None)
        if type(dense) is not int or not 0 < width <= dense:
            raise ValueError(f"hidden_size is {width!r:.40}, dense_hidden_size {dense!r:.40}")
        # The dense model first, then cut: the constructors of transformers refuse widths that heads do not divide.
        config.hidden_size = dense
        try:
            super().__init__(config, *inputs, **options)  # type: ignore[call-arg]  # of transformers' model
        finally:
            config.hidden_size = width
        _narrow(self, config)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Runs the model; refuses head_mask, which the models of transformers have ignored since version 5."""
        if options.get("head_mask") is not None:
            raise ValueError(
                f"head_mask is ignored by {type(self).__name__}, so no head would be silent. Leave it out; to take "
                "heads away, use trainflat.pruning.structured.shrink."
            )
        return super().__call__(*inputs, **options)  # type: ignore[misc]  # of torch's module


class Constant(nn.Module):
    """Stands for an output matrix that reads nothing any more: returns its bias at each position, or zeros."""

    def __init__(self, width: int, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.width, self.bias = width, bias

    def forward(self, states: Tensor) -> Tensor:
        shape = (*states.shape[:-1], self.width)
        return states.new_zeros(shape) if self.bias is None else self.bias.expand(shape)


class Empty(nn.Module):
    """Stands for the module that computes a sub-layer, without heads or units: runs what else is in that module.

    Args:
        inside: The output matrix and the LayerNorm, by name, where they belong to the module.
        pair: Whether the module returns attention weights beside its output; they are None.
    """

    def __init__(self, inside: Mapping[str, nn.Module], pair: bool) -> None:
        super().__init__()
        self.pair, self.steps = pair, tuple(inside)
        for name, module in inside.items():
            self.add_module(name, module)

    def forward(self, states: Tensor, *_: Any, **__: Any) -> Any:
        result = states
        if self.steps:
            result = getattr(self, self.steps[0])(states)
        if len(self.steps) > 1:  # ALBERT adds the residual where it attends
            result = getattr(self, self.steps[1])(states + result)
        return (result, None) if self.pair else result


def layer_paths(encoder: nn.Module, pattern: str) -> list[str]:
    """Lists the paths of an encoder's layers in the order in which they run; ``#`` in the pattern is any number."""
    wanted = pattern.split(".")
    found = (name for name, _ in encoder.named_modules())
    return [name for name in found if len(name.split(".")) == len(wanted) and _is_layer(name.split("."), wanted)]


def _is_layer(path: list[str], wanted: list[str]) -> bool:
    return all(part.isdecimal() if want == "#" else part == want for part, want in zip(path, wanted, strict=True))


def _narrow(model: Any, config: Any) -> None:
    """Cuts a dense model, whose weights are still to be read, to the widths of its config.

    Raises:
        ValueError: the config asks for more than the dense model has, or for what cannot be built.
    """
    names, encoder = config.names, model.base_model
    layers = layer_paths(encoder, names["layer"])
    strange = sorted(str(key) for key in config.per_layer_config or () if str(key) not in map(str, range(len(layers))))
    if strange and not names["shared"]:
        raise ValueError(f"per_layer_config has a layer {strange[0]:.40}; there are {len(layers)}")
    for number, path in enumerate(layers):
        layer, widths = encoder.get_submodule(path), config.layer(number)
        _narrow_attention(layer, names, widths, config, number)
        units = widths["intermediate_size"]
        if units:
            _cut_both(layer, names["mlp"], units)
        else:
            _empty(layer, names["mlp"], names["pre_norm"], skipped="mlp" in widths["skip"], pair=False)
    if config.hidden_size != config.dense_hidden_size:
        _narrow_hidden(model, encoder, layers, config)


def _narrow_attention(layer: nn.Module, names: Any, widths: dict[str, Any], config: Any, number: int) -> None:
    heads, size = widths["num_attention_heads"], widths["head_dim"]
    if not heads:
        _empty(layer, names["attention"], names["pre_norm"], skipped="attention" in widths["skip"], pair=True)
        return
    if names["rotary"] and size != config.head_dim:
        raise ValueError(f"layer {number} has heads of {size}; rotary positions are for {config.head_dim}")
    _cut_both(layer, names["attention"], heads * size)
    core = layer.get_submodule(names["attention"]["core"])
    sizes = dict.fromkeys(_HEADS, heads) | dict.fromkeys(_HEAD_SIZE, size)
    for name, value in {**sizes, "all_head_size": heads * size, "scaling": size**-0.5}.items():
        if hasattr(core, name):
            setattr(core, name, value)
    columns = config.columns(number)
    if names["position_scores"] and columns is not None:
        if len(columns) != heads or not all(0 <= one < config.num_attention_heads for one in columns):
            raise ValueError(f"position_heads of layer {number} does not name a column for each of its {heads} heads")
        core.register_forward_pre_hook(partial(_select_scores, columns=columns))


def _select_scores(_: nn.Module, inputs: tuple[Any, ...], columns: list[int]) -> tuple[Any, ...]:
    """Gives each head the scores of positions that it had before other heads were dropped."""
    states, mask, scores, *others = inputs
    return states, mask, scores if scores is None else scores[:, columns], *others


def _cut_both(layer: nn.Module, part: Any, width: int) -> None:
    """Cuts the inner width of a sub-layer: the rows of its input matrices, fused or not, and the output's columns."""
    for path, fused in part["inputs"]:
        if _has(layer, path):
            cut(layer.get_submodule(path), 0, fused * width)
    cut(layer.get_submodule(part["output"]), 1, width)


def _empty(layer: nn.Module, part: Any, pre_norm: bool, *, skipped: bool, pair: bool) -> None:
    """Leaves of a sub-layer its output's bias and the LayerNorm after it, or nothing where it is skipped."""
    output: Any = layer.get_submodule(part["output"])
    left: dict[str, nn.Module] = {part["output"]: Constant(output.out_features, None if skipped else output.bias)}
    # A LayerNorm before the sub-layer only fed what is gone.
    left[part["norm"]] = nn.Identity() if skipped or pre_norm else layer.get_submodule(part["norm"])
    prefix = part["core"] + "."
    inside = {path.removeprefix(prefix): module for path, module in left.items() if path.startswith(prefix)}
    layer.set_submodule(part["core"], Empty(inside, pair))
    for path, module in left.items():
        if not path.startswith(prefix):
            layer.set_submodule(path, module)


def _narrow_hidden(model: nn.Module, encoder: nn.Module, layers: list[str], config: Any) -> None:
    """Cuts what writes and what reads the hidden states to their new width."""
    names, width = config.names, config.hidden_size
    projected = _has(encoder, names["projection"])
    outside = {names["projection"]: 0} if projected else {**names["embeddings"], **dict.fromkeys(names["norms"], 0)}
    for path, axis in outside.items():
        _cut_at(encoder, path, axis, width)
    for layer in layers:
        for part in (names["attention"], names["mlp"]):
            for path, _ in part["inputs"]:
                _cut_at(encoder, f"{layer}.{path}", 1, width)
            for path in (part["output"], part["norm"]):
                _cut_at(encoder, f"{layer}.{path}", 0, width)
    root = next(f"{name}." if name else "" for name, module in model.named_modules() if module is encoder)
    readers = (path.replace("{}.", root) for path in names["readers"])
    reader = next((path for path in readers if _has(model, path)), None)
    if reader is not None:
        cut(model.get_submodule(reader), 1, width)


def _has(module: nn.Module, path: str) -> bool:
    return bool(path) and path in dict(module.named_modules())


def _cut_at(module: nn.Module, path: str, axis: int, size: int) -> None:
    """Cuts the module or the parameter at a path, if there is one."""
    if _has(module, path):
        cut(module.get_submodule(path), axis, size)
        return
    owner, _, name = path.rpartition(".")
    if _has(module, owner) and getattr(module.get_submodule(owner), name, None) is not None:
        _cut_tensor(module.get_submodule(owner), name, axis, size)


def cut(module: nn.Module, axis: int, size: int) -> None:
    """Keeps the first entries of a module's tensors along an axis: 0 its outputs, 1 its inputs.

    Raises:
        ValueError: it has not as many.
    """
    for name, tensor in list(module.named_parameters(recurse=False)):
        if axis == 0 or tensor.dim() > 1:
            _cut_tensor(module, name, axis, size)
    for name in _SIZES[axis]:
        if hasattr(module, name):
            setattr(module, name, size)
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (size,)


def _cut_tensor(module: nn.Module, name: str, axis: int, size: int) -> None:
    tensor: Any = getattr(module, name)
    if size > tensor.shape[axis]:
        raise ValueError(f"config.json asks for a width of {size} where the dense model has {tensor.shape[axis]}")
    with torch.no_grad():
        kept = tensor.narrow(axis, 0, size).clone()
    setattr(module, name, nn.Parameter(kept, tensor.requires_grad))
