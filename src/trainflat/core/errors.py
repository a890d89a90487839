"""Defines the exceptions, by who has to act; the exit code is 2 where the user can mend it, else 1.

::

    TrainflatError
    ├── InputError          the user's move: a recipe, a file or an option cannot be used     exit code 2
    │   ├── UnknownName     a name that no table knows; carries the nearest one
    │   └── DamagedFile     a file is not what was written: wrong hash, truncated
    ├── TrainingDiverged    the loss stopped being a number                                   exit code 1
    └── ZerosRevived        a pruned weight is no longer zero                                 exit code 1
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import shorten

_MOST = 12  # so many known names are listed in full after an unknown one
_SHOWN = 5  # of more, these: the nearest ones


class TrainflatError(Exception):
    """Base of all errors raised on purpose. Its text is one line: the thing, the value, the next move."""

    exit_code = 1


class InputError(TrainflatError, ValueError):
    """Raised for an input (recipe, file, option) that cannot be used; nothing was changed on disk."""

    exit_code = 2


class UnknownName(InputError, KeyError):
    """Raised for a name that a table lacks; the text shows the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "", more: str = "") -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=_SHOWN, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        if len(known) > _MOST:
            some = near[1:] or [one for one in known if one not in near][:_SHOWN]
            left = len(known) - len(some) - len(near[:1])
            listed = f" {'Near' if near[1:] else 'Known'}: {', '.join(some)} and {left} more{more and f'; {more}'}."
        else:
            listed = f" Known: {', '.join(known) or 'none'}."
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}no {kind} is called {name!r}.{hint}{listed}")

    def __str__(self) -> str:  # KeyError's own shows the repr of the text, in quotes
        return str(self.args[0])


class DamagedFile(InputError):
    """Raised for a file that is not what was written: its hash differs, or it is truncated."""


class TrainingDiverged(TrainflatError):
    """Raised when the loss or the weights stop being finite."""


class ZerosRevived(TrainflatError):
    """Raised when a pruned weight is not zero: an optimizer or a load has written over the mask."""


def is_fault(error: BaseException) -> bool:
    """Returns whether an exception is an error, not an interrupt or an exit."""
    # Panics of Rust, in which tokenizers is written, derive from BaseException.
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def one_line(error: BaseException, width: int = 150) -> str:
    """Shortens the message of any library's error to its first sentences, to quote it in one of ours."""
    text = " ".join(str(error).split())
    ends = [end.start() for end in re.finditer(r"[.!?](?= |$)", text) if end.start() <= width]
    quoted = text if len(text) <= width else text[: ends[-1]] if ends else shorten(text, width, placeholder=" ...")
    return quoted.rstrip(".: ") or type(error).__name__
