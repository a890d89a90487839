"""Label-noise training (Damian, Ma and Lee, NeurIPS 2021, arXiv:2106.06530)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer

_PROBABILITY = Number("is the share of labels to change, from 0 to 1", lambda x: 0 <= x <= 1)
_SIGMA = Number("is the standard deviation of the labels' noise, >= 0", lambda x: x >= 0)


class LabelNoise(FlatOptimizer):
    """Trains on noisy labels, drawn anew at every step; their noise drives the weights to flat minima.

    A class label becomes one of the other classes, uniformly, with a probability; a number gets Gaussian noise. Draws
    come from torch's global generator, whose state checkpoints save. One pass per step; nothing is perturbed. Labels
    below 0 (ignored positions) stay. In a loop of your own pass each training batch's labels through
    :meth:`prepare_labels`; the Trainer does.

    Departs from the paper: any base optimizer may take the step, where the paper proves the effect for SGD; and the
    paper's noise on numbers is sigma or -sigma, with the same variance as here.

    Args:
        params, base_optimizer, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        probability: Share of the class labels that are changed, from 0 to 1.
        sigma: Standard deviation of the noise on labels that are numbers, in units of the label.

    Raises:
        InputError: for a probability outside [0, 1] or a negative sigma.

    Example:
        >>> optimizer = LabelNoise([torch.nn.Parameter(torch.ones(2))], probability=1.0)
        >>> optimizer.prepare_labels(torch.tensor([0, 1, 1]), classes=2)
        tensor([1, 0, 0])
    """

    rho_only_displaces: ClassVar[bool] = False
    changes_labels: ClassVar[bool] = True

    probability: Annotated[float, _PROBABILITY] = 0.1
    sigma: Annotated[float, _SIGMA] = 0.1
    rho: float = 0.0  # no option: nothing is perturbed
    exclude: Sequence[str] = ()

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1.0

    @property
    def second_pass(self) -> bool:
        return False

    def prepare_labels(self, labels: Tensor, classes: int) -> Tensor:
        """Adds noise to labels: int [B], or any shape, for classes; float for numbers (``classes`` is 1).

        Raises:
            InputError: for float labels of several classes (multi-label tasks).
        """
        if classes == 1:
            return labels + self.sigma * torch.randn(labels.shape, device=labels.device) if self.sigma else labels
        if labels.is_floating_point():
            raise InputError(
                f"LabelNoise changes one class label per row or numbers, not {plural(classes, 'truth value')} per row."
            )
        if not self.probability:
            return labels
        chosen = (torch.rand(labels.shape, device=labels.device) < self.probability) & (labels >= 0)
        # Offsets 1 to C - 1 modulo C: every other class is equally likely, and never the label itself.
        others = torch.randint(1, classes, labels.shape, device=labels.device)
        return torch.where(chosen, (labels + others) % classes, labels)
