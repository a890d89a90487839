"""Single lines on standard output: results, notes, and the command that follows."""

import shlex
from pathlib import Path


def say(text: object) -> None:
    """Prints a line as it is, never wrapped."""
    _print(str(text), markup=False)


def say_note(text: str) -> None:
    """Prints a remark on what was left out or taken for granted."""
    from rich.markup import escape

    _print(f"[yellow]note:[/yellow] {escape(text)}", markup=True)


def suggest(*words: object) -> None:
    """Prints the command that follows, as a line that a shell takes."""
    say(f"Next: {shlex.join(['trainflat', *map(str, words)])}")


def beside(model: Path, ending: str) -> Path:
    """Names the folder beside a model's that an export goes to; relative where the model's is."""
    named = model if model.name not in ("", "..") else model.resolve()
    return named.with_name(f"{named.name}-{ending}")


def shrinking(model: Path) -> tuple[object, ...]:
    """Returns the command that makes a model smaller or, where that was done, the one that says what it brought."""
    target = beside(model, "int8")
    return ("bench", model, target) if target.exists() else ("export", model, "--to", "int8")


def _print(text: str, *, markup: bool) -> None:
    from rich.console import Console

    Console(soft_wrap=True, highlight=False).print(text, markup=markup)
