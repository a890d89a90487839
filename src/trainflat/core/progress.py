"""What a long piece of work tells whoever is watching. The command line draws it; by default nobody watches."""


class Progress:
    """Silent. Override what should be shown."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """A new piece of work of ``total`` units, of which ``done`` were done in an earlier run."""

    def advance(self, done: int, note: str = "") -> None:
        """``done`` units of the current piece are finished; ``note`` is the latest figure, such as the loss."""

    def end(self) -> None:
        """The current piece is finished."""
