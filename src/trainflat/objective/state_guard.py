"""Keeps a model's state while it is measured, and its attention twice differentiable."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def preserve_state(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Puts ``model`` into evaluation mode, and restores its state after the block, bit for bit, also on errors.

    That is: the values of ``weights`` and of all buffers, each module's mode, each parameter's ``grad`` and
    ``requires_grad``, and the random states of Python, NumPy and torch. Inside, ``weights`` require gradients, and
    gradients are recorded even where the caller switched them off.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_states(weights))
        stack.enter_context(_gradients_aside(model, weights))
        stack.enter_context(_values([*weights, *model.buffers()]))
        stack.enter_context(_evaluation_mode(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


class StateGuard:
    """Nests :func:`preserve_state`: the outermost block restores everything."""

    def __init__(self, model: nn.Module, weights: Sequence[Tensor]) -> None:
        self.model, self.weights, self.inside = model, weights, False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if self.inside:
            yield
            return
        self.inside = True
        try:
            with preserve_state(self.model, self.weights):
                yield
        finally:
            self.inside = False


@contextmanager
def _random_states(weights: Iterable[Tensor]) -> Iterator[None]:
    ours, numpys = random.getstate(), np.random.get_state()
    devices = {p.device.index for p in weights if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


@contextmanager
def _gradients_aside(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    before = [(p, p.grad, p.requires_grad) for p in {*model.parameters(), *weights}]
    for p, _, _ in before:
        p.grad = None
    for w in weights:
        w.requires_grad_(True)
    try:
        yield
    finally:
        for p, gradient, required in before:
            p.grad = gradient
            p.requires_grad_(required)


@contextmanager
def _values(tensors: Sequence[Tensor]) -> Iterator[None]:
    with torch.no_grad():
        before = [t.detach().clone() for t in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for t, value in zip(tensors, before, strict=True):
                t.copy_(value)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Makes attention twice differentiable for the forward passes inside.

    The fused kernels behind ``scaled_dot_product_attention`` have no second derivative; its plain form ("math") has,
    and so has "eager" attention. A transformers model with any other implementation is switched to "eager" and back.
    """
    config: Any = getattr(model, "config", None)
    used = getattr(config, "_attn_implementation", None)
    with sdpa_kernel(SDPBackend.MATH):
        if used in (None, "sdpa", "eager"):
            yield
            return
        switch: Any = model.set_attn_implementation
        switch("eager")
        try:
            yield
        finally:
            switch(used)
