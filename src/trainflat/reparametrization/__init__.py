"""Lists the reparametrizations: training moves θ in place of the weights w = f(θ)."""

from trainflat.core.errors import InputError
from trainflat.core.registry import Registry
from trainflat.reparametrization.base import Reparametrization
from trainflat.reparametrization.powerprop import Powerprop

REPARAMETRIZATIONS: Registry[Reparametrization] = Registry("reparametrization", given={"model"}, powerprop=Powerprop)


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
]
