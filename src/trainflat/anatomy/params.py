"""Unwraps models, and selects the parameters that are pruned."""

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainflat.core.errors import InputError

# Attributes under which wrappers keep what they wrap: torch.compile, activation checkpointing.
_INNER = ("_orig_mod", "_checkpoint_wrapped_module")
# Parts of names, for architectures without a layout. Modules of these names only prepare the encoder's input (Electra's
# `embeddings_project`, patch projections); parameters of these names are looked up or added, not multiplied (XLNet's
# `seg_embed`, `r_w_bias`).
_INPUT_PARTS = ("embedding", "embeddings")
_NO_MATRICES = ("bias", "emb", "token")


def unwrapped(model: Any) -> Any:
    """Returns the plain model inside DataParallel, DistributedDataParallel and torch.compile.

    Raises:
        InputError: the wrapper shards the weights (FSDP), or adds weights of its own (PEFT).
    """
    # By class names: importing FSDP and PEFT for isinstance is slow, and PEFT may not be installed.
    kinds = {kind.__name__: kind.__module__ for kind in type(model).__mro__}
    if any("FullyShardedDataParallel" in name or name == "FSDPModule" for name in kinds):
        raise InputError(f"{type(model).__name__} shards its weights; whole matrices are needed. Use data parallel.")
    if any(module.split(".")[0] == "peft" for module in kinds.values()):
        raise InputError(
            f"{type(model).__name__} is a PEFT adapter around a model. Give the model itself: merge_and_unload()."
        )
    names = ("module",) if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else _INNER
    parts = dict(model.named_children()) if isinstance(model, nn.Module) else {}
    inner = next((parts[name] for name in names if name in parts), None)
    return model if inner is None else unwrapped(inner)


def named_weights(model: nn.Module, *, every_name: bool = False) -> dict[str, nn.Parameter]:
    """Returns parameters by name in the plain model, also where parts are compiled; shared ones once by default."""
    named = unwrapped(model).named_parameters(remove_duplicate=not every_name)
    return {".".join(part for part in name.split(".") if part not in _INNER): p for name, p in named}


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the weight matrices that the papers prune, by name in the plain model.

    These are all matrices of the encoder (query, key, value, attention output, both feed-forward layers) and the
    pooler; not embeddings, biases, LayerNorm or the task head (Chen et al. 2020; Na, Mehta and Strubell 2022). In
    general: weights of linear layers, and all other parameters of two or more dimensions, such as convolutions. The
    encoder of a transformers model is its ``base_model``; of any other module, the whole module. A matrix that several
    layers share (ALBERT) is listed once. Frozen matrices are listed too, since a mask may prune what an optimizer does
    not train.

    Raises:
        InputError: a layer computes its matrix from other parameters (weight normalization), where a zero among these
            need not be a zero of the matrix.

    Example:
        >>> list(prunable(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))))
        ['0.weight', '2.weight']
    """
    model = unwrapped(model)
    encoder = unwrapped(getattr(model, "base_model", model))
    # A linear layer may be tied to an embedding, whose rows are looked up by other words as well.
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    inside: set[int] = set()
    for name, module in encoder.named_modules():
        if not any(part.startswith(_INPUT_PARTS) for part in name.split(".")):
            _refuse_computed(module, name)
            inside |= {id(p) for own, p in module.named_parameters(recurse=False) if _is_matrix(module, own, p)}
    return {name: p for name, p in named_weights(model).items() if id(p) in inside - tables}


def _is_matrix(module: nn.Module, name: str, p: Tensor) -> bool:
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return name == "weight"
    if "Norm" in type(module).__name__:
        return False
    # Squeezed, since a vector is often stored as [1, n] or [1, 1, n] to be added to all rows.
    return p.squeeze().dim() >= 2 and not any(part in name for part in _NO_MATRICES)


def _refuse_computed(module: nn.Module, name: str) -> None:
    # torch's parametrizations, and the older weight_norm and prune, which set `weight` as a plain attribute.
    if parametrize.is_parametrized(module) or isinstance(vars(module).get("weight"), Tensor):
        raise InputError(
            f"{name or type(module).__name__} computes its weight from other parameters, so it cannot be pruned. "
            "Make it a plain parameter first, with torch.nn.utils.parametrize.remove_parametrizations or prune.remove."
        )
