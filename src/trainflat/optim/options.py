"""From a recipe's words to an optimizer: which class, which options, what is wrong with them."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from trainflat.errors import InputError, UnknownName
from trainflat.optim.adam import Adam, AdamW
from trainflat.optim.base import FlatOptimizer

_UNFIT = {
    "lbfgs": "takes many gradients in one step",
    "sparseadam": "needs sparse gradients",
    "adadelta": "has an option rho of its own",
}
_BASES: dict[str, type[Optimizer]] = {
    name.lower(): member
    for name, member in vars(torch.optim).items()
    if isinstance(member, type) and issubclass(member, Optimizer) and member is not Optimizer
} | {"adam": Adam, "adamw": AdamW}


def base_class(name: Any) -> type[Optimizer]:
    """The class of ``torch.optim`` with that name in any case; Adam and AdamW are the fused ones of this package.

    Raises:
        UnknownName: for a name that torch does not have.
        InputError: for one that no flat optimizer can wrap.
    """
    key = str(name).lower()
    if key in _UNFIT:
        raise InputError(f"{name} cannot be the base of a flat optimizer: it {_UNFIT[key]}. Choose adamw, adam or sgd.")
    if key not in _BASES:
        raise UnknownName("base optimizer", str(name), _BASES.keys() - _UNFIT.keys())
    return _BASES[key]


def settle(name: str, member: type[Optimizer], options: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments for ``member`` from a recipe's options: base by class, numbers as numbers.

    Raises:
        UnknownName: for an option that neither the member nor its base has.
        InputError: for a value that cannot be used.
    """
    settled = {key: _number(value) for key, value in options.items()}
    known = _option_names(member)
    if issubclass(member, FlatOptimizer):
        settled["base_optimizer"] = base_class(settled.pop("base", "adamw"))
        known = (known - {"base_optimizer"}) | _option_names(settled["base_optimizer"]) | {"base"}
    for key in options:
        if key not in known:
            raise UnknownName(f"option of optimizer {name!r}", key, known)
    _check_values(settled)
    return settled


def build(name: str, member: type[Optimizer], params: Iterable[Any], settled: Mapping[str, Any]) -> Optimizer:
    """``member(params, **settled)``; what torch objects to becomes an InputError."""
    try:
        return member(params, **settled)
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"optimizer {name!r}: {error}") from error


def _option_names(member: type[Optimizer]) -> set[str]:
    # Own options and, through **options, those of the torch class that it extends; those that a flat optimizer passes
    # to its parent are its own business.
    named: set[str] = set()
    classes = [member] if issubclass(member, FlatOptimizer) else member.__mro__
    for cls in (c for c in classes if c is not Optimizer and issubclass(c, Optimizer)):
        parameters = inspect.signature(cls).parameters.values()
        named |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return named - {"params"}


def _number(value: Any) -> Any:
    # YAML reads 3e-5, without a point, as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return tuple(value) if isinstance(value, list) else value


def _check_values(options: Mapping[str, Any]) -> None:
    wanted: dict[str, tuple[str, Callable[[float], bool]]] = {
        "lr": ("a number > 0", lambda x: 0 < x < math.inf),
        "rho": ("a number >= 0", lambda x: 0 <= x < math.inf),
        "weight_decay": ("a number >= 0", lambda x: 0 <= x < math.inf),
        "p": ("a number >= 1", lambda x: x >= 1),
    }
    for key, (words, good) in wanted.items():
        value = options.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not good(value):
            raise InputError(f"{key} is {words}, got {value!r}.")
    exclude = options.get("exclude", ())
    if not isinstance(exclude, str) and not (isinstance(exclude, tuple) and all(isinstance(e, str) for e in exclude)):
        raise InputError(f"exclude is a list of parameter names or patterns, got {exclude!r}.")
