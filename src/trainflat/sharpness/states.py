"""Reads weights from state dicts, checked against the model that they are put into."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.foreach import foreach
from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector, apart

State = Mapping[str, Tensor]

_OTHER = "Give state dicts of the same architecture."


def require(condition: bool, message: str) -> None:
    """Raises :class:`InputError` with the message unless the condition holds."""
    if not condition:
        raise InputError(message)


@torch.no_grad()
def put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copies ``values`` into ``weights`` in place."""
    if weights:
        foreach("copy_", list(weights), list(values))


def check_states(points: Mapping[str, State]) -> None:
    """Checks that models are given as state dicts by name.

    Raises:
        InputError: something else is given, such as the models themselves.
    """
    require(isinstance(points, Mapping), f"points are state dicts by name, got a {type(points).__name__}.")
    for name, state in points.items():
        require(isinstance(name, str), f"points are state dicts by name, got {name!r} for a name.")
        kind = type(state).__name__
        require(
            isinstance(state, Mapping), f"{name} is a {kind}, no state dict. Give what `state_dict()` of it returns."
        )


def current_weights(objective: Objective) -> Vector:
    """Copies the weights of the objective's model. Raises InputError if a weight is not finite."""
    pairs = zip(objective.names, objective.weights, strict=True)
    return [checked_finite(weight.detach().clone(), key, "the model") for key, weight in pairs]


def weights_of(objective: Objective, state: State, name: str, head: State | None = None) -> Vector:
    """Selects the values of the objective's weights from a state dict, in their dtype; 0 where masks prune.

    Args:
        name: Name of the model in messages.
        head: Values of the task head's parameters, in place of those in the state dict.

    Raises:
        InputError: the state dict lacks a weight, has another shape or a value that is not finite, or has weights that
            the objective's model lacks.
    """
    found, values = [], {**state, **(head or {})}
    for key, weight, kept in zip(objective.names, objective.weights, objective.kept, strict=True):
        value = tensor_of(values, key, weight, name)
        found.append(value if kept is None else value * kept)
    # The heads of other points may differ (regression beside classification) where one head replaces them all.
    _check_surplus(objective, state, name, getattr(objective.model, "base_model_prefix", "") if head else "")
    return found


def _check_surplus(objective: Objective, state: State, name: str, prefix: str) -> None:
    """Refuses weights below ``prefix`` that the model lacks: distances would silently leave them out.

    Tensors of integers are no weights: older versions of transformers saved ``position_ids``, for one.
    """
    model = objective.model
    # Also the second names of tied weights and non-persistent buffers, which a state dict may or may not have.
    known = {*objective.names, *model.state_dict(), *dict(model.named_parameters(remove_duplicate=False))}
    known |= dict(model.named_buffers(remove_duplicate=False)).keys()
    for key in state:
        is_weight = isinstance(state[key], Tensor) and state[key].is_floating_point()
        if is_weight and key not in known and key.startswith(prefix):
            raise InputError(f"{name} has a weight {key}, which the model lacks. {_OTHER}")


def tensor_of(state: State, key: str, weight: Tensor, name: str) -> Tensor:
    """Selects one tensor of a state dict, in the dtype and on the device of the model's ``weight``.

    Raises:
        InputError: the state dict lacks it, or has it in another shape or not finite.
    """
    value = state.get(key)
    if not isinstance(value, Tensor):
        raise InputError(f"{name} has no weight {key}, which the model has. {_OTHER}")
    if value.shape != weight.shape:
        shapes = f"shape {list(value.shape)} in {name}, but {list(weight.shape)} in the model"
        raise InputError(f"{key} has {shapes}. {_OTHER}")
    return checked_finite(apart(value.detach().to(weight.device, weight.dtype), weight), key, name)


def checked_finite(value: Tensor, key: str, name: str) -> Tensor:
    """Returns ``value``. Raises InputError if an entry is NaN or infinite."""
    if not value.isfinite().all():
        raise InputError(f"{key} of {name} holds NaN or infinite values; a landscape needs finite weights.")
    return value


def head_of(model: nn.Module, points: Mapping[str, State], name: str) -> dict[str, Tensor]:
    """Selects the task head of one point: all parameters outside of transformers' ``base_model``.

    Raises:
        InputError: no point has that name, or the model has no head beside an encoder.
    """
    if name not in points:
        raise UnknownName("point", name, points, "head")
    inside = {id(p) for p in getattr(model, "base_model", model).parameters()}
    keys = [key for key, p in model.named_parameters() if id(p) not in inside]
    if not keys:
        raise InputError(f"{type(model).__name__} has no task head beside an encoder. Leave `head` out.")
    return {key: tensor_of(points[name], key, model.get_parameter(key), name) for key in keys}


@contextmanager
def parameters_set(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Sets parameters for the duration of the block; afterwards they are what they were, bit for bit."""
    parameters = [model.get_parameter(name) for name in values]
    before = [p.detach().clone() for p in parameters]
    try:
        put(parameters, list(values.values()))
        yield
    finally:
        put(parameters, before)
