"""Reports the progress of long work; the command line draws it, by default it is silent."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Base of progress displays; shows nothing itself."""

    def say(self, text: str) -> None:
        """Shows a line that stays."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Begins a piece of work of ``total`` units, of which ``done`` were done in an earlier run."""

    def advance(self, done: int, note: str = "") -> None:
        """Reports ``done`` finished units of the current piece; ``note`` is the latest figure, such as the loss."""

    def end(self) -> None:
        """Ends the current piece."""

    def each(self, what: str, items: Iterable[T], total: int) -> Iterator[T]:
        """Yields the items of a piece of work, each of which is finished when the next one is asked for."""
        self.begin(what, total)
        try:
            for done, item in enumerate(items, 1):
                yield item
                self.advance(done)
        finally:
            self.end()
