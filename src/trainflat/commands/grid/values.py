"""Reads the values on the axes of a grid: their labels, and the recipe keys that they set."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
_LONGEST = 40  # characters of a label


@dataclass(frozen=True)
class Labelled:
    """Holds one value on an axis: its label, and what it sets, by recipe key."""

    label: str
    settings: Mapping[str, Any]


def axis_values(axis: str, values: Sequence[Any] | Mapping[str, Mapping[str, Any]]) -> list[Labelled]:
    """Labels the values on an axis.

    A list holds values of the key that the axis is named for; a member of a family is labelled by its name where that
    is enough. A mapping holds, by label, settings that go together.

    Raises:
        InputError: a value stands on the axis twice.

    Example:
        >>> [value.label for value in axis_values("optimizer", ["adamw", {"name": "sam", "rho": 0.01}])]
        ['adamw', 'sam']
    """
    if isinstance(values, Mapping):
        return [Labelled(label, settings) for label, settings in values.items()]
    short = [str(value["name"]) if isinstance(value, Mapping) and "name" in value else _text(value) for value in values]
    counts = Counter(short)
    labels = [one if counts[one] == 1 else _text(value) for one, value in zip(short, values, strict=True)]
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise InputError(f"axis {axis} holds {twice[0]} twice. Leave one out, or label them in a mapping.")
    return [Labelled(label, {axis: value}) for label, value in zip(labels, values, strict=True)]


def full_key(key: str) -> str:
    """Returns the recipe key that a short name on an axis stands for, also in front of further keys."""
    first, dot, rest = key.partition(".")
    return f"{_SHORT.get(first, first)}{dot}{rest}"


def is_reference(value: Any, parts: Collection[str]) -> bool:
    """Returns whether a value names a run of a part: ``{run: PART, AXIS: LABEL, stage: dense}``."""
    return isinstance(value, Mapping) and "name" not in value and value.get("run") in parts


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


def _text(value: Any) -> str:
    text = " ".join(yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
