"""Rounds by torchao, as far as it has it: int8 weights per output channel, activations per token."""

import copy
from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from torch import nn

from trainflat.core.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


def quantize_by_torchao(model: Model, names: Collection[str]) -> Model:
    """Copies a model, in evaluation mode, with torchao's int8 tensors for the weights of the layers of these names.

    ``torch.compile`` makes it fast, in eager mode it is slower than float32. Its tensors cannot be written to
    safetensors from outside of torchao.

    Raises:
        InputError: torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise InputError("backend='torchao' needs torchao. Install: pip install 'trainflat[torchao]'")
    torchao: Any = import_module("torchao.quantization")
    result = copy.deepcopy(model).eval()
    config = torchao.Int8DynamicActivationInt8WeightConfig()
    torchao.quantize_(result, config, filter_fn=lambda module, name: name in names)
    return result
