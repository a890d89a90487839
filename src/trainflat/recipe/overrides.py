"""Parses ``--set key=value`` of the command line, and assigns the options of commands to task or format."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.registry import Registry
from trainflat.core.yaml_values import parse_yaml


def named_sections(
    overrides: Sequence[str], **members: tuple[Registry[Any], str | None]
) -> dict[str, dict[str, Any] | None]:
    """Builds sections of named members from ``--set`` options, each assigned to the member that has it.

    Args:
        overrides: ``label=stars``, or ``task.label=stars`` where another section has an option of that name.
        members: By section: its table, and the name of the member; None where nobody named one.

    Returns:
        Name and options of each section; None for one that has no member. Values are checked where they are used.

    Raises:
        InputError: an option is not written as ``key=value``, belongs to no section or to several, or is missing.

    Example:
        >>> class Shout:
        ...     def __init__(self, times: int = 1): ...
        >>> voices = Registry("voice", shout=Shout)
        >>> named_sections(["times=2"], voice=(voices, "shout"), echo=(voices, None))
        {'voice': {'name': 'shout', 'times': 2}, 'echo': None}
    """
    found = {key: None if name is None else {"name": name} for key, (_, name) in members.items()}
    for path, new in map(split_override, overrides):
        section, key = _home(path, members)
        held = found[section]
        if held is None:
            raise InputError(f"--set {path} is an option of the {section}, and none is named. Add --{section} NAME.")
        set_path(held, key, new)
    for section, (registry, name) in members.items():
        for key, parameter in registry.options(name).items() if name is not None else ():
            if parameter.default is parameter.empty and key not in (found[section] or ()):
                raise InputError(f"{registry.kind} {name!r} needs {key}. Add --set {key}=...")
    return found


def split_override(text: str) -> tuple[str, Any]:
    """Splits ``"training.epochs=2"`` into a path of keys and a value.

    Raises:
        InputError: it is not written so, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise InputError(f"--set takes key=value such as training.epochs=2, got {text!r}.")
    try:
        return path, parse_yaml(value)
    except ValueError as error:
        hint = f"Quote it for the shell: --set '{path}={value}'."
        raise InputError(f"--set {path}: {value!r} is not a YAML value. {hint}") from error


def set_path(value: dict[str, Any], path: str, new: Any) -> None:
    """Sets the value at a path of keys; ``task: cola`` on the way is short for ``task: {name: cola}``.

    Raises:
        InputError: the path leads through a value that has no keys.
    """
    *parents, last = path.split(".")
    here = value
    for key in parents:
        below = here.get(key)
        if below is None or isinstance(below, str):
            below = {"name": below} if below else {}
        if not isinstance(below, dict):
            raise InputError(f"--set {path}: {key} holds {below!r}, which has no keys.")
        here[key] = below
        here = below
    here[last] = new


def _home(path: str, members: Mapping[str, tuple[Registry[Any], str | None]]) -> tuple[str, str]:
    """Finds the section that an option belongs to, and its key there."""
    first, _, rest = path.partition(".")
    if rest and first in members:
        members, path = {first: members[first]}, rest
    key = path.partition(".")[0]
    named = {section: registry.options(name) for section, (registry, name) in members.items() if name is not None}
    homes = [section for section, options in named.items() if key in options]
    homes = homes or [section for section in members if section not in named and has_option(members[section][0], key)]
    if not homes:
        kinds = " or ".join(f"{registry.kind} {name!r}" for registry, name in members.values() if name is not None)
        raise UnknownName(f"option of {kinds or 'any task'}", key, {key for known in named.values() for key in known})
    if len(homes) > 1:
        ways = " or ".join(f"--set {section}.{path}=..." for section in homes)
        raise InputError(f"--set {path} is an option of the {' and of the '.join(homes)}. Write {ways}")
    return homes[0], path


def has_option(registry: Registry[Any], key: str) -> bool:
    """Returns whether any member of a family has an option of that name."""
    return any(key in registry.options(name) for name in registry)
