"""Frozen embeddings: the encoder's embeddings, with their LayerNorm, stay as they are during a training."""

from torch import nn

from trainflat.training.features.base import Feature, State


class FrozenEmbeddings(Feature):
    """Sets ``requires_grad`` of the embeddings to False while a model is trained.

    Args:
        settings: True.
    """

    in_recipes = False

    def __init__(self, settings: bool) -> None:
        self._frozen: list[nn.Parameter] = []

    def begin(self, state: State | None, step: int) -> None:
        named = self.run.model.named_parameters()
        self._frozen += [p for name, p in named if "embeddings." in name and p.requires_grad]
        self._set(False)

    def ended(self) -> None:
        self._set(True)
        self._frozen = []

    def _set(self, trains: bool) -> None:
        for p in self._frozen:
            p.requires_grad_(trains)
