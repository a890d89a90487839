"""Lists the reparametrizations: training moves θ in place of the weights w = f(θ)."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainflat.core.errors import InputError
from trainflat.core.registry import Registry
from trainflat.reparametrization.base import Reparametrization
from trainflat.reparametrization.powerprop import Powerprop

REPARAMETRIZATIONS: Registry[Reparametrization] = Registry("reparametrization", given={"model"}, powerprop=Powerprop)


def make_reparametrization(name: str, model: nn.Module, /, **options: Any) -> Reparametrization:
    """Builds the reparametrization that a recipe names.

    Raises:
        UnknownName: for a name or option that does not exist.
        InputError: for a value that cannot be used, or a model without such matrices.
    """
    return REPARAMETRIZATIONS.make(name, model, **options)


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a member, those not given with their defaults; raises what :func:`make_reparametrization` raises.

    Example:
        >>> complete_options("powerprop", {})
        {'alpha': 2.0}
    """
    return REPARAMETRIZATIONS.complete(name, nn.Linear(1, 1), options)


def check_alone(**others: object) -> None:
    """Refuses methods that read the trained parameters as weights, which are θ here.

    Args:
        **others: Sections of the recipe that cannot go with a reparametrisation, by name; None where absent.

    Raises:
        InputError: names the first section that is present.
    """
    for name, value in others.items():
        if value is not None:
            raise InputError(
                f"{name} reads the trained parameters, which reparametrization makes θ. Choose one of them."
            )


__all__ = [
    "REPARAMETRIZATIONS",
    "Powerprop",
    "Reparametrization",
    "check_alone",
    "complete_options",
    "make_reparametrization",
]
