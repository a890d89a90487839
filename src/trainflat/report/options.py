"""Fills in optimizers' default options, so that records from before they were written compare with later ones.

The options are read from the sources of the optimizers, because reports do without torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trainflat.core.listing import option_defaults

_ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False}
BASES: dict[str, dict[str, Any]] = {"adam": _ADAM | {"weight_decay": 0.0}, "adamw": _ADAM | {"weight_decay": 0.01}}


def own_options(name: object) -> dict[str, Any]:
    """Returns the defaults of an optimizer's own options, without its base's; {} for an unknown name."""
    defaults = option_defaults("optimizers").get(str(name), {})
    return {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


def completed(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in every option that a recipe's section leaves out, except the learning rate; whole numbers as floats.

    Example:
        >>> completed({"name": "msam", "base": "sgd", "lr": 1})
        {'rho': 0.3, 'exclude': [], 'base': 'sgd', 'name': 'msam', 'lr': 1.0}
    """
    name = optimizer.get("name")
    flat = name in option_defaults("optimizers") and name not in BASES
    base = str(optimizer.get("base", "adamw")).lower() if flat else name
    own = own_options(name) | ({"base": base} if base != name else {}) | BASES.get(str(base), {})
    return {key: _plain(value) for key, value in (own | dict(optimizer)).items()}


def unusual(optimizers: Sequence[Mapping[str, Any]]) -> set[str]:
    """Returns the method's own options, base included, that are not at their default in all of these sections."""
    return {
        key
        for section in map(completed, optimizers)
        for key, default in (own_options(section.get("name")) | {"base": "adamw"}).items()
        if key in section and section[key] != _plain(default)
    }


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
