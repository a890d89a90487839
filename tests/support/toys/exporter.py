"""An export format."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification

from trainflat.export.base import Exporter, Source


class ToyExporter(Exporter):
    """Weights as they are, and a file that says so."""

    file = "toy.txt"
    tolerance = 0.0

    def write(self, source: Source, folder: Path) -> None:
        source.model.save_pretrained(folder)
        (folder / self.file).write_text("a toy")

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()
