"""Writes int8 folders of this package: the only int8 format that ``from_pretrained`` reads."""

from math import inf
from pathlib import Path

from torch import nn

from trainflat.export.base import Exporter, Source
from trainflat.models.int8 import load_int8
from trainflat.models.quiet import no_bars
from trainflat.quantization import Activations, quantize_dynamic
from trainflat.quantization.layout import OWN_WEIGHTS


class Int8(Exporter):
    """int8 weights, activations rounded as they come; from_pretrained loads it once trainflat is imported.

    Args:
        activations: How inputs of layers are rounded, ``token``, ``batch`` or ``torch``; as for ``quantize_dynamic``.
        embeddings: Also round lookup tables, one step per row.
        head: Also round the linear layers outside the encoder.
    """

    file = OWN_WEIGHTS
    tolerance = inf

    def __init__(self, activations: Activations = "token", embeddings: bool = False, head: bool = False) -> None:
        self.activations, self.embeddings, self.head = activations, embeddings, head

    def write(self, source: Source, folder: Path) -> None:
        """Writes ``config.json`` and ``trainflat.safetensors``."""
        small = quantize_dynamic(source.model, activations=self.activations, embeddings=self.embeddings, head=self.head)
        with no_bars():
            small.save_pretrained(folder)

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> nn.Module:
        del threads
        model: nn.Module = load_int8(folder)
        return model
