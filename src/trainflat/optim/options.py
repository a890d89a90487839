"""Reads an optimizer's options from a recipe: resolves the base class, types and defaults."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from trainflat.core.errors import InputError, UnknownName
from trainflat.optim.adam import Adam, AdamW
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import UNFIT, refuse_unfit

# Which kernel computes the step, and which way it goes, is no business of a recipe.
_MECHANICS = {"foreach", "fused", "capturable", "differentiable", "maximize"}
_FIXED = {"betas", "etas", "step_sizes", "ns_coefficients", "eps"}  # lists of torch whose length is given
_BASE, _RATE = "adamw", 2e-5
_LARGEST = 2**53  # of whole numbers that a float holds exactly
_BASES: dict[str, type[Optimizer]] = {
    name.lower(): member
    for name, member in vars(torch.optim).items()
    if isinstance(member, type) and issubclass(member, Optimizer) and member is not Optimizer
} | {"adam": Adam, "adamw": AdamW}


def base_class(name: Any) -> type[Optimizer]:
    """Looks up a ``torch.optim`` class by name in any case; Adam and AdamW are this package's fused ones.

    Raises:
        UnknownName: for a name that torch does not have.
        InputError: for one that no flat optimizer can wrap.
    """
    key = str(name).lower()
    refuse_unfit(str(name))
    if key not in _BASES:
        raise UnknownName("base optimizer", str(name), _BASES.keys() - UNFIT.keys())
    return _BASES[key]


def settle(name: str, member: type[Optimizer], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns constructor arguments for ``member`` from a recipe's options: base by class, numbers as numbers.

    Raises:
        UnknownName: for an option that neither the member nor its base has.
        InputError: for a value that cannot be used.
    """
    known = _known(member, options)
    for key in options:
        if key not in known:
            raise UnknownName(f"option of optimizer {name!r}", key, known)
    _check_values({key: _read(key, value) for key, value in options.items()})
    # What a flat optimizer takes it checks itself, and says what it is; torch's classes take much without a word.
    own = _own_options(member) if issubclass(member, FlatOptimizer) else set()
    settled = {k: _read(k, v) if k in own else _typed(k, v, known[k]) for k, v in options.items()}
    if issubclass(member, FlatOptimizer):
        settled["base_optimizer"] = base_class(settled.pop("base", _BASE))
    return settled


def complete(name: str, member: type[Optimizer], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every option with its value, as JSON: those of the member, its base, those of the base.

    Two ways to write one optimizer are the same afterwards. Without a learning rate it is that of fine-tuning, 2e-5,
    not torch's for training from scratch. Of classes that are torch's alone only what was given is there, because
    their options differ from one torch to the next, and a recipe's hash must not.

    Raises:
        UnknownName, InputError: as :func:`settle`.
    """
    settle(name, member, options)
    known = _known(member, options)
    values = known | {"lr": _RATE} | {key: value for key, value in options.items() if value is not None}
    shown = {"lr", *_own_options(member), *options}
    if issubclass(member, FlatOptimizer):
        shown |= {"base", *_own_options(base_class(options.get("base", _BASE)))}
    filled = {key: _typed(key, values[key], default) for key, default in known.items() if key in shown}
    if "base" in filled:
        filled["base"] = str(filled["base"]).lower()
    return {key: _as_json(value) for key, value in filled.items()}


def build(name: str, member: type[Optimizer], params: Iterable[Any], settled: Mapping[str, Any]) -> Optimizer:
    """Makes ``member(params, **settled)``; turns torch's objections into InputError."""
    try:
        return member(params, **settled)
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"optimizer {name!r}: {error}") from error


def _known(member: type[Optimizer], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that a recipe may set, with their defaults."""
    if not issubclass(member, FlatOptimizer):
        return _defaults(member)
    own = {key: value for key, value in _defaults(member).items() if key != "base_optimizer"}
    return own | {"base": _BASE} | _defaults(base_class(options.get("base", _BASE)))


def _defaults(member: type[Optimizer]) -> dict[str, Any]:
    # Own options and, through **options, those of the torch class that it extends; those that a flat optimizer passes
    # to its parent are its own business.
    named: dict[str, Any] = {}
    classes = [member] if issubclass(member, FlatOptimizer) else member.__mro__
    for cls in (c for c in classes if c is not Optimizer and issubclass(c, Optimizer)):
        parameters = inspect.signature(cls).parameters.values()
        variable = {p.kind for p in parameters} & {inspect.Parameter.VAR_KEYWORD}
        fixed = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        named = {p.name: p.default for p in fixed} | named
        if not variable:
            break
    return {key: default for key, default in named.items() if key not in _MECHANICS | {"params"}}


def _own_options(member: type[Optimizer]) -> set[str]:
    return set(inspect.signature(member).parameters) if member.__module__.startswith("trainflat.") else set()


def _typed(key: str, value: Any, default: Any) -> Any:
    """Converts a value to the type of its default, so that 1, 1.0 and YAML's text 1e0 are one value."""
    if key == "exclude":
        value = default if value is None else value
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    if isinstance(default, bool):
        return _fitting(key, value, "true or false", isinstance(value, bool))
    if isinstance(default, tuple):
        members = tuple(map(_number, value)) if isinstance(value, list | tuple) else ()
        fits = len(members) > 0 and all(x is None or _is_number(x) for x in members)
        fits = fits and (len(members) == len(default) or key not in _FIXED)
        words = f"a list of {f'{len(default)} ' if key in _FIXED else ''}numbers such as {list(default)}"
        return _fitting(key, members or value, words, fits)
    if isinstance(default, int | float):
        number = _number(value)
        finite = _is_number(number) and (math.isfinite(number) or key == "p")
        _fitting(key, value, f"a number such as {default:g}", finite)
        whole = isinstance(default, int) and float(number).is_integer()
        return int(number) if whole else float(number)
    return _number(value) if default is None else value


def _fitting(key: str, value: Any, words: str, fits: bool) -> Any:
    if not fits:
        raise InputError(f"{key} is {words}, got {value!r}.")
    return value


def _read(key: str, value: Any) -> Any:
    """Reads a number from text, except where the option takes names, which may look like one (exclude: '11')."""
    if key == "exclude":
        return tuple(value) if isinstance(value, list) else value
    return _number(value)


def _number(value: Any) -> Any:
    # YAML reads 3e-5, without a point, as text.
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value) if isinstance(value, str) or abs(value) > _LARGEST else value
        except (ValueError, OverflowError):
            return value if isinstance(value, str) else math.inf
    return tuple(value) if isinstance(value, list) else value


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if value == math.inf else value  # an option may be infinite (p), a number of JSON may not


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    exclude = () if options.get("exclude") is None else options["exclude"]
    if not isinstance(exclude, str) and not (isinstance(exclude, tuple) and all(isinstance(e, str) for e in exclude)):
        raise InputError(f"exclude is a list of parameter names or patterns, got {exclude!r}.")
