"""Fills in optimizers' default options, so that records from before they were written compare with later ones.

A copy of what the optimizers' constructors say, because reports do without torch; a test holds it to them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

OWN: dict[str, dict[str, Any]] = {
    "adam": {},
    "adamw": {},
    "sam": {"rho": 0.05, "p": 2.0, "exclude": [], "every": 1, "start": 0.0, "stop": 1.0},
    "asam": {"rho": 0.5, "eta": 0.01, "exclude": []},
    "looksam": {"rho": 0.05, "k": 5, "alpha": 0.7, "exclude": []},
    "esam": {"rho": 0.05, "beta": 0.5, "gamma": 0.5, "seed": 0, "exclude": []},
    "fisher-ssam": {"rho": 0.05, "sparsity": 0.5, "refresh": 100, "exclude": []},
    "gsam": {"rho": 0.05, "rho_min": 0.0, "alpha": 0.4, "exclude": []},
    "friendlysam": {"rho": 0.05, "sigma": 1.0, "lmbda": 0.6, "exclude": []},
    "msam": {"rho": 0.3, "exclude": []},
    "s2sam": {"rho": 0.05, "exclude": []},
    "cram": {"rho": 0.05, "sparsities": [0.5, 0.7, 0.9], "plus": False, "seed": 0, "exclude": []},
    "extrapolated": {"extrapolation": 1.0, "direction": "gradient", "exclude": []},
    "entropy-sgd": {"inner_steps": 5, "inner_lr": 0.1, "gamma": 0.03, "noise": 1e-4, "alpha": 0.75, "seed": 0},
    "label-noise": {"probability": 0.1, "sigma": 0.1},
    "l1": {"penalty": 1e-5, "exclude": None},
}
_ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False}
BASES: dict[str, dict[str, Any]] = {"adam": _ADAM | {"weight_decay": 0.0}, "adamw": _ADAM | {"weight_decay": 0.01}}


def completed(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in every option that a recipe's section leaves out, except the learning rate; whole numbers as floats.

    Example:
        >>> completed({"name": "msam", "base": "sgd", "lr": 1})
        {'rho': 0.3, 'exclude': [], 'base': 'sgd', 'name': 'msam', 'lr': 1.0}
    """
    name = optimizer.get("name")
    base = str(optimizer.get("base", "adamw")).lower() if name in OWN and name not in BASES else name
    own = OWN.get(str(name), {}) | ({"base": base} if base != name else {}) | BASES.get(str(base), {})
    return {key: _plain(value) for key, value in (own | dict(optimizer)).items()}


def unusual(optimizers: Sequence[Mapping[str, Any]]) -> set[str]:
    """Returns the method's own options, base included, that are not at their default in all of these sections."""
    return {
        key
        for section in map(completed, optimizers)
        for key, default in (OWN.get(str(section.get("name")), {}) | {"base": "adamw"}).items()
        if key in section and section[key] != _plain(default)
    }


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
