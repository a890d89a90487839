"""Scalars whose gradients show how a model's own predictions would change: Fisher information without labels."""

from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812

from trainflat.anatomy.heads import kind_of, no_padding

_EXACT = 4  # classes whose expectation is taken exactly; of more, so many draws are taken


def pulls(model: Any, outputs: Any, batch: Mapping[str, Tensor], generator: Generator) -> Iterator[Tensor]:
    r"""Yields scalars whose gradients g by rows give the Hessian of the loss against the model's own predictions.

    For any parameter of which each row has a copy of its own, such as a gate, the sum of :math:`g g^T` over what is
    yielded is, row by row, the Hessian of :math:`KL(p \| q)` at q = p (of the mean squared error where numbers are
    predicted): the Fisher information under the model's own labels. With p over up to four classes it is
    :math:`\sum_y p_y (e_y - p)(e_y - p)^T` exactly, in the logits; otherwise it is so in expectation over draws.

    Args:
        model: A transformers model with a task head.
        outputs: Of the batch, with their graph.
        batch: Its ``attention_mask`` is looked at.
        generator: Draws labels where there are many, and signs where there are several numbers.

    Raises:
        InputError: the outputs have no logits of a known kind.
    """
    kind = kind_of(model, outputs)
    if kind == "numbers":
        logits = outputs["logits"]
        yield sqrt(2 / logits[0].numel()) * (_signs(logits, generator) * logits).sum()
    elif kind == "labels":
        logits, p = outputs["logits"], outputs["logits"].detach().sigmoid()
        yield (_signs(logits, generator) * (p * (1 - p) / logits.shape[-1]).sqrt() * logits).sum()
    elif kind == "spans":
        yield from _drawn([_masked(outputs[name], batch) for name in ("start_logits", "end_logits")], generator, 0.5)
    elif kind == "tokens":
        logits = outputs["logits"]
        mask = batch.get("attention_mask", torch.ones(logits.shape[:2]))
        yield from _drawn([logits[no_padding(kind, logits, mask)].view(-1, logits.shape[-1])], generator, 1.0)
    elif outputs["logits"].shape[-1] <= _EXACT:
        logits, p = outputs["logits"], outputs["logits"].detach().softmax(-1)
        for y in range(logits.shape[-1]):
            yield (p[:, y].sqrt() * (logits[:, y] - (p * logits).sum(-1))).sum()
    else:
        yield from _drawn([outputs["logits"]], generator, 1.0)


def _drawn(logits: list[Tensor], generator: Generator, share: float) -> Iterator[Tensor]:
    """Draws labels y for each set of logits [N, C] a few times, and yields the sums of e_y - p times logits."""
    for _ in range(_EXACT):
        total = logits[0].new_zeros(())
        for z in logits:
            p = z.detach().softmax(-1)
            # One number per row, so that padding, whose p is 0, changes no draw.
            draw = torch.rand(len(p), 1, generator=generator, dtype=torch.float64).to(p.device)
            y = (p.double().cumsum(-1) < draw).sum(-1).clamp_max(p.shape[-1] - 1)
            total = total + ((F.one_hot(y, p.shape[-1]) - p) * z.masked_fill(p == 0, 0)).sum()
        yield total * sqrt(share / _EXACT)


def _masked(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    mask = batch.get("attention_mask")
    return logits if mask is None else logits.masked_fill(~no_padding("spans", logits, mask), -torch.inf)


def _signs(like: Tensor, generator: Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)
