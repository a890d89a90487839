"""Reads the values on the axes of a grid: their labels, and the recipe keys that they set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from trainflat.core.errors import InputError
from trainflat.core.registry import Registry
from trainflat.protocols import PROTOCOLS
from trainflat.pruning.gates import GATES, METHODS

SPARSITY = "sparsity"
_SHORT = {"optimizer": "training.optimizer"}
_LEARNED: Mapping[str, Registry[Any]] = {"gate": GATES, "method": METHODS}  # options of protocols that name a gate
_OF_GATES = ("sparsity", "target_sparsity")


@dataclass(frozen=True)
class Labelled:
    """Holds one value on an axis: its label, and what it sets, by recipe key."""

    label: str
    settings: Mapping[str, Any]


def axis_values(axis: str, values: Sequence[Any] | Mapping[str, Mapping[str, Any]]) -> list[Labelled]:
    """Labels the values on an axis.

    A list holds values of the key that the axis is named for; a member of a family is labelled by its name and what
    tells it from others of that name. A mapping holds, by label, settings that go together.

    Raises:
        InputError: a value stands on the axis twice.

    Example:
        >>> sams = [{"name": "sam", "lr": 1e-4, "rho": rho} for rho in (0.01, 0.1)]
        >>> [value.label for value in axis_values("optimizer", ["adamw", *sams])]
        ['adamw', 'sam rho 0.01', 'sam rho 0.1']
    """
    if isinstance(values, Mapping):
        return [Labelled(label, settings) for label, settings in values.items()]
    labels = [_label(value, values) for value in values]
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise InputError(f"axis {axis} holds {twice[0]} twice. Leave one out, or label them in a mapping.")
    return [Labelled(label, {axis: value}) for label, value in zip(labels, values, strict=True)]


def full_key(key: str) -> str:
    """Returns the recipe key that a short name on an axis stands for, also in front of further keys."""
    first, dot, rest = key.partition(".")
    return f"{_SHORT.get(first, first)}{dot}{rest}"


def sparsity_setting(section: str | Mapping[str, Any], value: Any) -> dict[str, Any]:
    """Returns the recipe key that says how sparse the models of a protocol get, with the value in its form.

    Args:
        section: The protocol's, as far as it is known.
        value: A share, or a list where the protocol takes several.

    Raises:
        InputError: the protocol has no such option.
    """
    name, given = PROTOCOLS.named(section)
    options = PROTOCOLS.kind_of(name, given).model_fields
    if "sparsities" in options:
        return {"protocol.sparsities": value if isinstance(value, list) else [value]}
    if "sparsity" in options:
        return {"protocol.sparsity": value}
    for key, table in _LEARNED.items():
        if key in options:
            member, own = table.named(given.get(key, options[key].default))
            of_gate = [one for one in _OF_GATES if one in table.kind_of(member, own).model_fields]
            if of_gate:
                return {f"protocol.{key}": {"name": member, **own, of_gate[0]: value}}
    raise InputError(f"protocol {name} has no sparsity to set. Name the recipe key as the axis instead.")


def _label(value: Any, values: Sequence[Any]) -> str:
    """Returns the name of a member and the options that tell it from others of that name, or the value as YAML."""
    if not isinstance(value, Mapping) or "name" not in value:
        return as_text(value)
    alike = [one for one in values if isinstance(one, Mapping) and one.get("name") == value["name"]]
    own = [key for key in value if any(one.get(key) != value[key] for one in alike)]
    return " ".join([str(value["name"]), *(f"{key} {as_text(value[key])}" for key in own)])


def as_text(value: Any) -> str:
    """Returns a value as YAML in one line: the label of one that has no name."""
    return " ".join(yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").split())
