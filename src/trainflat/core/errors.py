"""Defines the exceptions, by who has to act.

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

_MOST = 12  # names that are shown when one is not known; of more, the nearest
_SHOWN = 5


class TrainflatError(Exception):
    """Everything that this package raises on purpose. Its text is one line: the thing, the value, the next move."""

    exit_code = 1


class InputError(TrainflatError, ValueError):
    """What was given cannot be used, and nothing was changed."""

    exit_code = 2


class UnknownName(InputError, KeyError):
    """No ``kind`` has that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "", more: str = "") -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=_SHOWN, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        if len(known) > _MOST:
            some = near[1:] or [one for one in known if one not in near][:_SHOWN]
            left = len(known) - len(some) - len(near[:1])
            told = f" {'Near' if near[1:] else 'Known'}: {', '.join(some)} and {left} more{more and f'; {more}'}."
        else:
            told = f" Known: {', '.join(known) or 'none'}."
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}no {kind} is called {name!r}.{hint}{told}")

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0])


class DamagedFile(InputError):
    """A file on disk is not the one that was written there."""


class TrainingDiverged(TrainflatError):
    """The loss or the weights stopped being finite."""


class ZerosRevived(TrainflatError):
    """A weight that a mask holds at zero is not zero."""


def is_fault(error: BaseException) -> bool:
    """Returns whether an exception is an error, not a wanted exit; tokenizers panic outside ``Exception``."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def one_line(error: BaseException, width: int = 150) -> str:
    """Shortens the message of any library's error to its first sentences, to quote it in one of ours."""
    text = " ".join(str(error).split())
    ends = [end.start() for end in re.finditer(r"[.!?](?= |$)", text) if end.start() <= width]
    told = text if len(text) <= width else text[: ends[-1]] if ends else shorten(text, width, placeholder=" ...")
    return told.rstrip(".: ") or type(error).__name__
