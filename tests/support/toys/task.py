"""A task."""

from pathlib import Path

from trainflat.tasks.base import Head
from trainflat.tasks.rows import Rows
from trainflat.tasks.text import TextTask

WORDS = ["flat", "sharp", "loss", "step"]


class ToyTask(TextTask):
    """Which of two words begins a sentence. Accuracy."""

    def __init__(self, *, data: Path | None = None, seed: int = 0) -> None:
        del data, seed
        texts = [f"{WORDS[i % 2]} {' '.join(WORDS[i % 3 :] * (1 + i % 5))}" for i in range(24)]
        rows = Rows({"text": texts, "label": [i % 2 for i in range(24)]}, "embedded")
        super().__init__("toy", Head("classification", ("flat", "sharp")), ("accuracy",), rows, {"validation": rows})
