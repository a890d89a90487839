"""Labels the lines of a figure: the optimizer and the fewest settings that distinguish it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainflat.report.words import option

Settings = Mapping[str, Any]  # dotted key -> value of one line


def label_lines(optimizer: str, settings: Sequence[Settings], told: Collection[str]) -> list[tuple[int, str]]:
    """Orders an optimizer's lines, and gives each a label unlike any other.

    Args:
        optimizer: Of all these lines.
        settings: Of each line.
        told: Keys that are told in any case.
    """
    keys = sorted({key for setting in settings for key in setting}, key=_telling)
    chosen = [key for key in keys if key in told]
    for key in keys:
        if key not in chosen and _kinds(settings, [*chosen, key]) > _kinds(settings, chosen):
            chosen.append(key)
    chosen.sort(key=_telling)
    order = sorted(range(len(settings)), key=lambda i: [_sortable(settings[i].get(key)) for key in chosen])
    return [(i, _label(optimizer, settings[i], chosen)) for i in order]


def _telling(key: str) -> tuple[bool, bool, bool, str]:
    path = key.split(".")
    # What is averaged or quantized comes first, then the optimizer's settings, of them the radius.
    member = path[-1] == "name" and path[-2:-1] in (["averaging"], ["quantization"])
    return not member, "optimizer" not in path, path[-1] != "rho", key


def _kinds(settings: Sequence[Settings], keys: Sequence[str]) -> int:
    return len({repr([setting.get(key) for key in keys]) for setting in settings})


def _sortable(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def _label(optimizer: str, setting: Settings, chosen: Sequence[str]) -> str:
    told = [f"{_called(key)} {option(setting[key])}" for key in chosen if key in setting]
    return f"{optimizer} ({', '.join(told)})" if told else optimizer


def _called(key: str) -> str:
    """Returns the last word of a setting's path; for ``averaging.name`` it is ``averaging``."""
    return key.removesuffix(".name").rpartition(".")[2]
