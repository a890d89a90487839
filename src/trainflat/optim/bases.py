"""Checks and builds what a flat optimizer is constructed from: the base optimizer, the radius, the names to exclude."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Annotated, Any

from torch.optim import Optimizer

from trainflat.core.errors import InputError
from trainflat.core.settings import Check, Number


class _Patterns(Check):
    """Names of parameters, as a tuple: parts of a name or globs; a single one may stand alone, none is ``()``."""

    def read(self, name: str, value: Any) -> tuple[str, ...]:
        patterns = (value,) if isinstance(value, str) else () if value is None else value
        # As they are written: '11' may be part of a name, and is no number.
        if not isinstance(patterns, list | tuple) or not all(isinstance(one, str) for one in patterns):
            shown = tuple(patterns) if isinstance(patterns, list | tuple) else patterns
            raise InputError(f"{name} is a list of parameter names or patterns, got {shown!r}.")
        return tuple(patterns)


RADIUS = Number("is the radius of the perturbation, a number >= 0", lambda x: x >= 0)
WHOLE = Number("is a whole number >= 1", lambda x: x >= 1, whole=True)
PATTERNS = _Patterns()
Radius = Annotated[float, RADIUS]
Whole = Annotated[int, WHOLE]
Seed = Annotated[int, Number("is a whole number >= 0", lambda x: x >= 0, whole=True)]

UNFIT = {
    "lbfgs": "takes many gradients in one step",
    "sparseadam": "needs sparse gradients",
    "adadelta": "has an option rho of its own",
}


def make_base(base: Any, params: Iterable[Any], options: Mapping[str, Any]) -> Optimizer:
    """Builds ``base(params, **options)``.

    Raises:
        InputError: ``base`` is no class of optimizers or one that no flat optimizer can wrap, or a parameter is given
            twice.
    """
    if isinstance(base, Optimizer) or not callable(base):
        given = f"a finished {type(base).__name__}" if isinstance(base, Optimizer) else repr(base)
        raise InputError(
            f"base_optimizer is a class such as torch.optim.AdamW, got {given}. Pass the class, its options by name."
        )
    for kind in base.__mro__ if isinstance(base, type) else ():  # a subclass of LBFGS is as unfit
        refuse_unfit(kind.__name__)
    with each_once():
        made = base(params, **options)
    # Other libraries have their own; a group's "rho" cannot be its option and our radius at once.
    if "rho" in made.defaults:
        raise InputError(f"{type(made).__name__} has an option rho of its own; choose another base optimizer.")
    checked: Optimizer = made
    return checked


def refuse_unfit(name: str) -> None:
    """Raises InputError for a torch optimizer, named in any case, that no flat optimizer can wrap."""
    if name.lower() in UNFIT:
        why = UNFIT[name.lower()]
        raise InputError(f"{name} cannot be the base of a flat optimizer: it {why}. Choose adamw, adam or sgd.")


@contextmanager
def each_once() -> Iterator[None]:
    """Turns torch's warning and error about a parameter that is given twice into an InputError."""
    with warnings.catch_warnings():
        # Within one group torch only warns, and then takes the parameter's step twice.
        warnings.filterwarnings("error", "optimizer contains a parameter group with duplicate")
        try:
            yield
        except (UserWarning, ValueError) as error:
            if "duplicate param" in str(error) or "more than one parameter group" in str(error):
                raise InputError(
                    "params holds a parameter more than once, whose step would be taken twice. Give each one once."
                ) from error
            raise


def matches(pattern: str, name: str) -> bool:
    """Matches a parameter's name with a part of it, or with a glob such as ``"*.bias"``."""
    return pattern in name or fnmatchcase(name, pattern)


def refuse_idle_patterns(patterns: Iterable[str], groups: list[dict[str, Any]]) -> None:
    """Raises InputError for a pattern that matches no parameter: a typo would silently exclude nothing."""
    names = [name for group in groups for name in group.get("param_names", ())]
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            raise InputError(f"exclude={pattern!r} matches no parameter. Names look like {names[0]!r}, {names[-1]!r}.")
