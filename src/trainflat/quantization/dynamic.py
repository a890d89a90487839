"""Post-training dynamic int8: weights ahead of time, activations as they come, no retraining."""

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeVar, get_args

from torch import nn

from trainflat.anatomy.params import prunable, unwrapped
from trainflat.core.errors import InputError, UnknownName
from trainflat.quantization.arithmetic import quantize_matrix_as_torch, quantize_rows
from trainflat.quantization.layout import check_activations, int8_copy
from trainflat.quantization.modules import Activations, Int8Module, int8_module

Backend = Literal["trainflat", "torchao"]

Model = TypeVar("Model", bound=nn.Module)


def quantize_dynamic(
    model: Model,
    *,
    embeddings: bool = False,
    head: bool = False,
    activations: Activations = "token",
    exclude: Collection[str] = (),
    backend: Backend = "trainflat",
) -> Model:
    """Copies a model into one whose linear layers multiply int8, ready for inference; ``model`` itself is left alone.

    Weights are rounded once, symmetrically with one step per output channel; inputs at every call. The copy is an
    ordinary module in evaluation mode: its integers and steps are buffers, ``state_dict`` and safetensors hold them as
    tensors, and a transformers model's ``save_pretrained`` notes in config.json which layers are int8. Zeros of a
    pruned model stay zeros.

    Left in float: subclasses of ``nn.Linear`` and ``nn.Embedding``, and matrices that several modules share, such as
    the output layer of a masked language model, tied to its embeddings.

    Args:
        model: Any module with float weights; a transformers model or your own.
        embeddings: Also round lookup tables, one step per row.
        head: Also round the linear layers outside ``model.base_model``; torch's own ``quantize_dynamic``, which the
            papers used, does. A model without ``base_model`` has no head: all its layers count as encoder.
        activations: ``token`` rounds each input row by itself, ``batch`` all together. ``torch`` is what
            ``torch.ao.quantization.quantize_dynamic`` computes by default, in all its numbers and coarser than both:
            one step per weight matrix, inputs all together in 7 bits. Figures of papers are made with it.
        exclude: Names of modules to leave in float, with ``*`` for any text: ``"*.pooler.dense"``.
        backend: ``torchao`` puts that library's int8 tensors in the same places, for comparisons: ``torch.compile``
            makes these fast, but this package neither saves nor loads them. It rounds per token, and no tables.

    Raises:
        InputError: there is nothing to round, the model is int8 already, a weight is not finite, a pattern of
            ``exclude`` fits no layer, or the backend is not installed or has no such option.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2))
        >>> small = quantize_dynamic(model)
        >>> small[0].weight_int8.dtype, small[0].scale.shape
        (torch.int8, torch.Size([16]))
        >>> x = torch.randn(4, 8)
        >>> torch.allclose(small(x), model(x), atol=0.05)
        True
    """
    check_activations(activations)
    _check_backend(backend, embeddings, activations)
    model = unwrapped(model)
    config = getattr(model, "config", None)
    if _is_quantized(model) or getattr(config, "quantization_config", None):
        raise InputError(f"{type(model).__name__} is quantized already. Give the model that it was made from.")
    chosen = layers_to_round(model, embeddings=embeddings, head=head, exclude=exclude)
    if backend == "torchao":
        return _by_torchao(model, chosen)
    made = {name: _rounded(module, name, activations) for name, module in chosen.items()}
    return int8_copy(model, made, activations)


def _is_quantized(model: nn.Module) -> bool:
    ours = any(isinstance(module, Int8Module) for module in model.modules())
    return ours or any(type(p).__module__.startswith("torchao.") for p in model.parameters())


def _check_backend(backend: str, embeddings: bool, activations: Activations) -> None:
    if backend not in get_args(Backend):
        raise UnknownName("int8 backend", backend, get_args(Backend))
    if backend == "torchao" and (embeddings or activations != "token"):
        option = "embeddings=True" if embeddings else f"activations={activations!r}"
        raise InputError(f"backend='torchao' does not take {option}. Leave it out, or the backend.")


def _by_torchao(model: Model, names: Collection[str]) -> Model:
    """Copies a model, in evaluation mode, with torchao's int8 tensors for the weights of the layers of these names.

    ``torch.compile`` makes it fast, in eager mode it is slower than float32. Its tensors cannot be written to
    safetensors from outside of torchao.

    Raises:
        InputError: torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise InputError("backend='torchao' needs torchao. Install: pip install 'trainflat[torchao]'")
    torchao: Any = import_module("torchao.quantization")
    result = copy.deepcopy(model).eval()
    config = torchao.Int8DynamicActivationInt8WeightConfig()
    torchao.quantize_(result, config, filter_fn=lambda module, name: name in names)
    return result


def layers_to_round(
    model: nn.Module, *, embeddings: bool = False, head: bool = False, exclude: Collection[str] = ()
) -> dict[str, nn.Module]:
    """Finds the modules that int8 is for, by name; options as of :func:`quantize_dynamic`.

    Raises:
        InputError: there is no linear layer among them, most matrices are in other layers, or a pattern of ``exclude``
            fits none.
    """
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    model = unwrapped(model)
    inside = {id(module) for module in (model if head else getattr(model, "base_model", model)).modules()}
    candidates = {name: module for name, module in _roundable(model, embeddings) if id(module) in inside}
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            raise InputError(f"exclude names {pattern!r}, which fits no layer that would be rounded. Leave it out.")
    chosen = {n: m for n, m in candidates.items() if not any(fnmatchcase(n, pattern) for pattern in exclude)}
    if not any(isinstance(module, nn.Linear) for module in chosen.values()):
        raise InputError(f"{type(model).__name__} has no linear layer to round to int8. Give one that has.")
    _refuse_little(model, candidates)
    return chosen


def _refuse_little(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Raises InputError where linear layers are not even half of what an encoder's matrices hold."""
    matrices = {id(p): p.numel() for p in prunable(model).values()}
    rounded = sum(matrices.get(id(getattr(module, "weight", None)), 0) for module in layers.values())
    if 2 * rounded < sum(matrices.values()):
        raise InputError(
            f"{type(model).__name__} has {rounded / sum(matrices.values()):.0%} of its matrices in linear layers, "
            "which are all that int8 rounds here; the others would stay in float. Give an encoder of linear layers."
        )


def _roundable(model: nn.Module, embeddings: bool) -> Iterator[tuple[str, nn.Module]]:
    """Yields linear layers, and tables if wanted, with a matrix of their own."""
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    for name, module in model.named_modules():
        # Exactly these classes: a subclass may use its weights in a way of its own, as nn.MultiheadAttention's does.
        is_table = type(module) is nn.Embedding and embeddings and module.max_norm is None
        if (type(module) is nn.Linear or is_table) and owners[id(module.weight)] == 1 and module.weight.numel():
            yield name, module


def _rounded(module: nn.Module, name: str, activations: Activations) -> Int8Module:
    weight = module.get_parameter("weight")
    if weight.is_meta:
        raise InputError(f"{name or type(module).__name__} has no weights yet (it is on the meta device). Load them.")
    as_torch = activations == "torch" and isinstance(module, nn.Linear)
    rounded = (quantize_matrix_as_torch if as_torch else quantize_rows)(weight.detach())
    return int8_module(module, rounded, name, activations)
