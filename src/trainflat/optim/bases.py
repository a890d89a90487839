"""Makes and checks the base optimizer inside a flat one."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from trainflat.core.errors import InputError

UNFIT = {
    "lbfgs": "takes many gradients in one step",
    "sparseadam": "needs sparse gradients",
    "adadelta": "has an option rho of its own",
}


def make_base(base: Any, params: Iterable[Any], options: Mapping[str, Any]) -> Optimizer:
    """Makes ``base(params, **options)``; turns torch's objections into InputError.

    Raises:
        InputError: it is no class of optimizers, or of one that no flat optimizer can be around, or a parameter is
            given twice.
    """
    if isinstance(base, Optimizer) or not callable(base):
        given = f"a finished {type(base).__name__}" if isinstance(base, Optimizer) else repr(base)
        raise InputError(
            f"base_optimizer is a class such as torch.optim.AdamW, got {given}. Pass the class, its options by name."
        )
    for kind in base.__mro__ if isinstance(base, type) else ():
        refuse_unfit(kind.__name__)
    with each_once():
        made = base(params, **options)
    if "rho" in made.defaults:
        raise InputError(f"{type(made).__name__} has an option rho of its own; choose another base optimizer.")
    checked: Optimizer = made
    return checked


def refuse_unfit(name: str) -> None:
    """Refuses a torch optimizer that no flat one can wrap, by name, whatever its case."""
    if name.lower() in UNFIT:
        why = UNFIT[name.lower()]
        raise InputError(f"{name} cannot be the base of a flat optimizer: it {why}. Choose adamw, adam or sgd.")


@contextmanager
def each_once() -> Iterator[None]:
    """Refuses parameters that an optimizer is given twice inside the block; torch lets some of them pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "optimizer contains a parameter group with duplicate")
        try:
            yield
        except (UserWarning, ValueError) as error:
            if "duplicate param" in str(error) or "more than one parameter group" in str(error):
                raise InputError(
                    "params holds a parameter more than once, whose step would be taken twice. Give each one once."
                ) from error
            raise
