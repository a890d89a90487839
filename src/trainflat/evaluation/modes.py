"""Evaluation leaves no trace in the model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Turns dropout and gradients off inside; afterwards each module is in the mode it was in, also on an error.

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
