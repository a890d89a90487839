"""Finds the settings, other than optimizer, sparsity and seed, by which lines drawn together differ."""

from collections.abc import Sequence
from typing import Any

from trainflat.core.listing import option_defaults
from trainflat.records.run import Record
from trainflat.report.options import BASES
from trainflat.report.panels import Line, Panel, says_how_far, traits
from trainflat.report.words import DASH, option

SETTING = "Setting"
ABOUT = "Settings in which these lines differ beside optimizer and sparsity: a difference of scores may come from them."
_OPTIMIZER = "training.optimizer."
# The method itself: options that only some optimizers have. What it is based on is compared as `base`.
_METHOD = {f"{_OPTIMIZER}{key}" for own in option_defaults("optimizers").values() for key in own} | {
    f"{_OPTIMIZER}name"
}
_BASE = f"{_OPTIMIZER}base"
_SHOWN, _NAMED = 5, 3  # settings in a sentence, and lines up to which their values are named


def differences(panel: Panel) -> list[dict[str, str]]:
    """Returns one row per setting of recipe or machine that is not the same in all lines, one column per line."""
    lines = {line.label: [_settings(record) for record in line.records] for line in panel.lines}
    keys = list(dict.fromkeys(key for found in lines.values() for settings in found for key in settings))
    rows = []
    for key in keys:
        shown = {label: _values(key, found) for label, found in lines.items()}
        if len(set(shown.values())) > 1:
            rows.append({SETTING: key, **shown})
    return rows


def differing(panel: Panel) -> str:
    """Says in a sentence in what the lines differ; empty where they differ in nothing else."""
    rows = differences(panel)
    told = [_told(row, panel.lines) for row in rows[:_SHOWN]]
    more = [row[SETTING] for row in rows[_SHOWN:]]
    if more:
        told.append(f"and {option(', '.join(more))} ({len(more)} more)")
    return f"beside optimizer and sparsity, lines differ in {'; '.join(told)}" if told else ""


def _told(row: dict[str, str], lines: Sequence[Line]) -> str:
    values = list(dict.fromkeys(row[line.label] for line in lines))
    if len(lines) > _NAMED:
        return f"{row[SETTING]} ({', '.join(values)})"
    named = [f"{value} ({', '.join(line.label for line in lines if row[line.label] == value)})" for value in values]
    return f"{row[SETTING]}: {', '.join(named)}"


def _settings(record: Record) -> dict[str, Any]:
    found = {key: value for key, value in traits(record) if key not in _METHOD and not says_how_far(key)}
    if record.optimizer in BASES:  # a plain optimizer is its own base, in whatever case a flat one names it
        found[_BASE] = record.optimizer
    elif isinstance(found.get(_BASE), str):
        found[_BASE] = found[_BASE].lower()
    return found | {f"environment.{key}": value for key, value in record.environment.items()}


def _values(key: str, found: Sequence[dict[str, Any]]) -> str:
    values = sorted({DASH if settings.get(key) is None else option(settings[key]) for settings in found})
    return ", ".join(values)
