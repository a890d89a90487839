"""Sections of a recipe that name a member of a family."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from trainflat.core.errors import UnknownName
from trainflat.core.formatting import shown, wanted
from trainflat.core.registry import Registry

T = TypeVar("T")


def build(registry: Registry[T], section: Mapping[str, Any], **given: Any) -> T:
    """The member that a checked section names; what JSON writes as text, a path, is one again."""
    known = registry.options(section["name"])
    options = {k: TypeAdapter(known[k].annotation).validate_python(v) for k, v in section.items() if k != "name"}
    return registry.build(section["name"], **given, **options)


def member(registry: Registry[Any], value: Any) -> Any:
    """A section that names a member: the name exists, its options too, their values are of the annotated types."""
    name, options = registry.named(value if isinstance(value, str | dict) else {})
    known = registry.options(name)
    checked = {"name": name}
    for key, given in options.items():
        if key not in known:
            raise UnknownName(f"option of {registry.kind} {name!r}", key, known)
        if not _is_finite(given):  # JSON, in which recipes are kept, has no such numbers
            raise ValueError(f"{key}: finite numbers are expected, got {given!r}")
        try:
            typed: TypeAdapter[Any] = TypeAdapter(known[key].annotation)
            checked[key] = typed.dump_python(typed.validate_python(given), mode="json")
        except ValidationError as error:
            told = all(e["type"] == "value_error" for e in error.errors())  # by a member, which says what it got
            raise ValueError(f"{key}: {wanted(error.errors())}" + ("" if told else f", got {shown(given)}")) from error
    missing = [key for key, parameter in known.items() if parameter.default is parameter.empty and key not in checked]
    if missing:
        raise ValueError(f"{registry.kind} {name!r} needs {missing[0]}")
    left = {key: parameter for key, parameter in known.items() if key not in checked}
    return checked | {k: TypeAdapter(p.annotation).dump_python(p.default, mode="json") for k, p in left.items()}


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
