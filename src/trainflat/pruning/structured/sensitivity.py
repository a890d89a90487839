"""Measures how much a model's predictions change with the output of each sub-layer, which makes errors comparable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from trainflat.core.progress import Progress
from trainflat.objective.state_guard import preserve_state
from trainflat.pruning.structured.layerwise import Batch, questions, rows_of, unpadded
from trainflat.pruning.structured.pulls import pulls
from trainflat.pruning.structured.sub_layers import SubLayer


def sensitivities(
    model: nn.Module, subs: Sequence[SubLayer], batches: Sequence[Batch], seed: int, progress: Progress | None = None
) -> list[Tensor]:
    r"""Returns for each sub-layer a matrix G [outputs, outputs] by which errors of its output predict the loss.

    With an error :math:`\delta_t` of the output at position t, KL against the model's own predictions rises by
    :math:`\frac12 E_n (\sum_t g_t \cdot \delta_t)^2`, in the mean over rows n, with the gradients g of
    :func:`~trainflat.pruning.structured.pulls.pulls`. If errors neither depend on gradients nor on each other, that is

    .. math:: \operatorname{tr}(G \Delta), \quad G = \frac{1}{2N} \sum_n \sum_t g_t g_t^T, \quad
        \Delta = E\,\delta \delta^T

    (as K-FAC has it: Martens and Grosse, ICML 2015, arXiv:1503.05671). One forward pass, and a backward pass per pull.

    Args:
        model: A transformers model with a task head.
        subs: Its sub-layers.
        batches: Calibration rows.
        seed: Of draws, which few heads need.
        progress: Told of the batches that are done.
    """
    rows = rows_of(batches)
    found = [torch.zeros(sub.output.outputs, sub.output.outputs).double() for sub in subs]
    with preserve_state(model, []):
        for batch in (progress or Progress()).each("gradients of sub-layers", batches, len(batches)):
            with _outputs(model, subs) as given:
                predictions = model(**questions(batch))
            places = [(total, output) for total, own in zip(found, given, strict=True) for output in own]
            # Anew for each batch, so that the order of batches changes no draw.
            for pull in pulls(model, predictions, batch, Generator().manual_seed(seed)):
                gradients = torch.autograd.grad(pull, [output for _, output in places], retain_graph=True)
                for (total, _), gradient in zip(places, gradients, strict=True):
                    g = unpadded(batch, gradient).double()
                    total.add_((g.T @ g).cpu())
    return [total / (2 * rows) for total in found]


@contextmanager
def _outputs(model: nn.Module, subs: Sequence[SubLayer]) -> Iterator[list[list[Tensor]]]:
    """Collects what the output matrices put out, in every call, so that it can be differentiated by."""
    found: list[list[Tensor]] = [[] for _ in subs]

    def keep(own: list[Tensor], output: Tensor) -> Tensor:
        own.append(output if output.requires_grad else output.requires_grad_())  # weights need no gradients here
        return output

    def hook(own: list[Tensor]) -> Any:
        return lambda _, __, output: keep(own, output)

    handles = [sub.matrix(model).register_forward_hook(hook(own)) for sub, own in zip(subs, found, strict=True)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
