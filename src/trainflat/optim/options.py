"""Reads sections that name an optimizer: its options, its base optimizer's, numbers that YAML reads as text."""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch.optim import Optimizer

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.registry import Registry
from trainflat.core.settings import Check, Number, Section, Settings, Truth, checks_of
from trainflat.optim.adam import Adam, AdamW
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import UNFIT, make_base, refuse_idle_patterns, refuse_unfit

# Which kernel computes the step, and which way it goes, is no business of a recipe.
_MECHANICS = {"foreach", "fused", "capturable", "differentiable", "maximize"}
_FIXED = {"betas", "etas", "step_sizes", "ns_coefficients", "eps"}  # lists of torch whose length is given
_BASE, _RATE = "adamw", 2e-5  # the rate of fine-tuning, not torch's for training from scratch
_LARGEST = 2**53  # of whole numbers that a float holds exactly
_BASES: dict[str, type[Optimizer]] = {
    name.lower(): member
    for name, member in vars(torch.optim).items()
    if isinstance(member, type) and issubclass(member, Optimizer) and member is not Optimizer
} | {"adam": Adam, "adamw": AdamW}
_OWN_WORDS = {  # of torch's options, which torch's classes check only in their constructors
    "lr": Number("is a number > 0", lambda x: x > 0),
    "weight_decay": Number("is a number >= 0", lambda x: x >= 0),
}


class OptimizerSettings(Settings):
    """Settings of an optimizer and, where it is a flat one, of its base.

    Of classes that are torch's alone only the options that were given are used and written, because their defaults
    differ from one torch to the next, and a recipe's hash must not.
    """

    foreign: ClassVar[frozenset[str]]

    @property
    def options(self) -> dict[str, Any]:
        return {key: v for key, v in self if key not in self.foreign or key in self.model_fields_set}

    def dump(self) -> dict[str, Any]:
        return {key: _as_json(value) for key, value in self.options.items()}

    def build(self, *args: Any, **given: Any) -> Optimizer:
        """Builds the optimizer on parameters, groups or named parameters (which ``exclude`` needs).

        Raises:
            InputError: they do not fit, or torch refuses a value.
        """
        options = self.options
        if "base" in options:
            options["base_optimizer"] = base_class(options.pop("base"))
        with _named(self.name):
            made: Optimizer = self.member(*args, **given, **options)
        return made

    @property
    def average_passes(self) -> float:
        """Counts forward and backward passes over a batch per step, on average."""
        return float(self.member.average_passes(self.options)) if issubclass(self.member, FlatOptimizer) else 1.0

    def check_parameters(self, named: Iterable[tuple[str, torch.nn.Parameter]]) -> None:
        """Checks that the optimizer takes such parameters, of which only names and shapes are looked at.

        Raises:
            InputError: it does not: a pattern that matches none, a class that is for matrices alone.
        """
        outlines = [(name, torch.nn.Parameter(torch.empty_like(p, device="meta"))) for name, p in named]
        with _named(self.name):
            self._base(outlines)
        if issubclass(self.member, FlatOptimizer):
            refuse_idle_patterns(self.options.get("exclude") or (), [{"param_names": [name for name, _ in outlines]}])

    def check_values(self) -> None:
        """Raises InputError for values that torch's own class refuses, which only its constructor tells."""
        # A matrix, because some optimizers (Muon) take nothing else.
        with _named(self.name):
            base = self._base([torch.nn.Parameter(torch.zeros(1, 1))])
        if issubclass(self.member, FlatOptimizer):
            self.member.check_base(base, self.options)

    def _base(self, params: Iterable[Any]) -> Optimizer:
        if not issubclass(self.member, FlatOptimizer):
            made: Optimizer = self.member(params, **self.options)
            return made
        own = {"base", *_own_options(self.member)}
        return make_base(base_class(self.base), params, {k: v for k, v in self.options.items() if k not in own})


class OptimizerTable(Registry[Optimizer]):
    """Optimizers by name. A flat one also takes ``base``, a class of ``torch.optim`` in any case, and its options.

    Example:
        >>> from trainflat.optim import OPTIMIZERS
        >>> settings = OPTIMIZERS.read({"name": "sam", "base": "sgd", "lr": "1e-1", "momentum": 0.9, "rho": 0.02})
        >>> settings.build([torch.nn.Parameter(torch.ones(2))]).base.defaults["momentum"]
        0.9
        >>> OPTIMIZERS.read({"name": "adam", "lr": "3e-5"}).section()
        {'name': 'adam', 'lr': 3e-05, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'amsgrad': False}
    """

    def kind_of(self, name: str, options: Mapping[str, Any]) -> type[Settings]:
        member = self[name]
        base = base_class(options.get("base", _BASE)) if issubclass(member, FlatOptimizer) else None
        key = f"{name} over {base}"
        if key not in self._settings:
            self._settings[key] = _settings_class(name, member, base)
        return self._settings[key]

    def read(self, section: Section) -> OptimizerSettings:
        settings = super().read(section)
        assert isinstance(settings, OptimizerSettings)
        return settings

    def together(self, made: Settings) -> Settings:
        made = super().together(made)
        assert isinstance(made, OptimizerSettings)
        made.check_values()
        return made


def base_class(name: Any) -> type[Optimizer]:
    """Finds the class of ``torch.optim`` by name in any case; Adam and AdamW are the fused ones of this package.

    Raises:
        UnknownName: for a name that torch does not have.
        InputError: for one that no flat optimizer can wrap.
    """
    key = str(name).lower()
    refuse_unfit(str(name))
    if key not in _BASES:
        raise UnknownName("base optimizer", str(name), _BASES.keys() - UNFIT.keys())
    return _BASES[key]


def _settings_class(name: str, member: type[Optimizer], base: type[Optimizer] | None) -> type[OptimizerSettings]:
    own, defaults = _own_options(member), _defaults(member)
    if base is not None:
        defaults = {key: value for key, value in defaults.items() if key != "base_optimizer"}
        defaults = defaults | {"base": _BASE} | _defaults(base)
        own = {*own, "base", *_own_options(base)}
    checks: dict[str, Check] = {"base": _BaseName(), **checks_of(member)}
    fields = {
        key: (Annotated[Any, _FromText(checks[key]) if key in checks else Option(default)], default)
        for key, default in (defaults | {"lr": _RATE}).items()
    }
    made = OptimizerSettings.made(name, member, fields)
    made.foreign = frozenset(defaults.keys() - own - {"lr"})
    return made


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


class Option(Check):
    """Reads an option of torch's as what its default is: 1, 1.0 and, as YAML reads it, the text 1e0 are one value."""

    def __init__(self, default: Any) -> None:
        self.default = default

    def read(self, name: str, value: Any) -> Any:
        default, number = self.default, as_number(value)
        if name in _OWN_WORDS:
            return _OWN_WORDS[name].read(name, number)
        if isinstance(default, bool):
            return Truth().read(name, value)
        if isinstance(default, tuple):
            members = tuple(map(as_number, value)) if isinstance(value, list | tuple) else ()
            fits = len(members) > 0 and all(x is None or _is_finite(x) for x in members)
            if not fits or (name in _FIXED and len(members) != len(default)):
                count = f"{len(default)} " if name in _FIXED else ""
                raise InputError(
                    f"{name} is a list of {count}numbers such as {list(default)}, got {members or value!r}."
                )
            return members
        if isinstance(default, int | float):
            if not _is_finite(number):
                raise InputError(f"{name} is a number such as {default:g}, got {value!r}.")
            whole = isinstance(default, int) and float(number).is_integer()
            return int(number) if whole else float(number)
        return tuple(value) if isinstance(value, list) else number if default is None else value


@dataclass(frozen=True)
class _FromText(Check):
    """Reads by another check what may be a number that YAML took for text."""

    check: Check

    def read(self, name: str, value: Any) -> Any:
        return self.check.read(name, as_number(value) if isinstance(self.check, Number) else value)


class _BaseName(Check):
    def read(self, name: str, value: Any) -> str:
        return str(value).lower()


def as_number(value: Any) -> Any:
    """Returns the number that a text such as 3e-5 stands for, which YAML reads as text; any other value as it is."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    try:
        return float(value) if isinstance(value, str) or abs(value) > _LARGEST else value
    except (ValueError, OverflowError):
        return value if isinstance(value, str) else math.inf


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if value == math.inf else value  # an option may be infinite (p), a number of JSON may not


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turns torch's errors in the block into an InputError that names the optimizer."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"optimizer {name!r}: {error}") from error
