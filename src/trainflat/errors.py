"""What can go wrong, and whose move it is.

::

    TrainflatError
    ├── InputError          the user's move: a recipe, a file or an option cannot be used     exit code 2
    │   ├── UnknownName     a name that no table knows; carries the nearest one
    │   └── DamagedFile     a file is not what was written: wrong hash, truncated
    ├── TrainingDiverged    the loss stopped being a number                                   exit code 1
    └── ZerosRevived        a pruned weight is no longer zero                                 exit code 1
"""

from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import shorten


class TrainflatError(Exception):
    """Everything that this package raises on purpose. Its text is one line: the thing, the value, the next move."""

    exit_code = 1


class InputError(TrainflatError, ValueError):
    """What was given cannot be used, and nothing was changed."""

    exit_code = 2


class UnknownName(InputError, KeyError):
    """No ``kind`` has that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}no {kind} is called {name!r}.{hint} Known: {', '.join(known) or 'none'}.")

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0])


class DamagedFile(InputError):
    """A file on disk is not the one that was written there."""


class TrainingDiverged(TrainflatError):
    """The loss or the weights stopped being finite."""


class ZerosRevived(TrainflatError):
    """A weight that a mask holds at zero is not zero."""


def one_line(error: BaseException, width: int = 150) -> str:
    """What an error of any library says, in at most ``width`` characters, to stand in a message of ours."""
    return shorten(str(error), width, placeholder=" ...").rstrip(".: ") or type(error).__name__
