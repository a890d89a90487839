"""Reports the progress of long work; the command line draws it, by default it is silent."""


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
