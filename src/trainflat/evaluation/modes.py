"""Evaluation leaves no trace in the model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """No dropout and no gradients inside; afterwards each module is in the mode it was in, also after an exception.

    Yields:
        The device of the weights.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield next((p.device for p in model.parameters()), torch.device("cpu"))
    finally:
        for module in training:
            module.training = True
