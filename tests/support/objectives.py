"""Losses whose value, gradient and Hessian are known, and a tiny transformer on a few rows."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.conftest import tiny_bert
from trainflat.core.progress import Progress
from trainflat.sharpness import Objective

BERT = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8} | {
    "max_position_embeddings": 12
}


class Point(nn.Module):
    """Some weights in two tensors, float64."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        values = values.double()
        self.a = nn.Parameter(values[:4].clone().view(2, 2))
        self.b = nn.Parameter(values[4:].clone())

    def flat(self) -> Tensor:
        return torch.cat([self.a.reshape(-1), self.b])


def surface(
    start: Tensor,
    gradient: Tensor | float = 0.0,
    hessian: Tensor | float = 0.0,
    level: float = 0.5,
    rows: tuple[int, ...] = (4,),
    **options: Any,
) -> Objective:
    """``level + gᵀ(w - start) + (w - start)ᵀ H (w - start) / 2``, H a matrix or a diagonal, w at ``start``.

    The rows of the batches are factors with mean 1, so that only their weighted mean gives that function.
    """
    n = len(start)
    g = torch.as_tensor(gradient, dtype=torch.float64).expand(n)
    h = torch.as_tensor(hessian, dtype=torch.float64)
    h = h if h.ndim == 2 else torch.diag(h.expand(n))
    origin = start.double()

    def loss(model: Point, batch: Mapping[str, Tensor]) -> Tensor:
        step = model.flat() - origin
        return batch["factor"].mean() * (level + g @ step + step @ h @ step / 2)

    factors = torch.linspace(0.5, 1.5, sum(rows), dtype=torch.float64)
    return Objective(Point(start), [{"factor": f} for f in factors.split(rows)], loss=loss, **options)


def flat(vector: list[Tensor]) -> Tensor:
    return torch.cat([v.reshape(-1) for v in vector])


def matrix(n: int, seed: int = 0) -> Tensor:
    """A random symmetric matrix, float64."""
    m = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (m + m.T) / 2


def sentences(rows: int, seed: int = 0, vocabulary: int = 30) -> dict[str, Tensor]:
    """Rows of six words, some of them padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (rows, 6), generator=generator)
    mask = torch.ones_like(ids)
    mask[::2, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(rows) % 2}


def cut(rows: Mapping[str, Tensor], *sizes: int) -> list[dict[str, Tensor]]:
    """The rows as batches of these sizes."""
    parts = {name: tensor.split(sizes) for name, tensor in rows.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(len(sizes))]


def bert_objective(*sizes: int, attention: str = "sdpa", **options: Any) -> Objective:
    """A float64 BERT of one layer and 874 weights, in training mode, on batches of these sizes."""
    model = tiny_bert(attn_implementation=attention, **BERT).double().train()
    with torch.no_grad():  # as initialized, LayerNorm and biases are special points
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    sizes = sizes or (5,)
    return Objective(model, cut(sentences(sum(sizes)), *sizes), **options)


def survivors(objective: Objective, share: float = 0.5) -> dict[str, Tensor]:
    """Random masks for every matrix."""
    generator = torch.Generator().manual_seed(3)
    named = zip(objective.names, objective.weights, strict=True)
    return {name: torch.rand(w.shape, generator=generator) < share for name, w in named if w.ndim > 1}


def snapshot(model):
    tensors = {name: t.clone() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    modes = [(module.training, name) for name, module in model.named_modules()]
    required = [p.requires_grad for p in model.parameters()]
    chance = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
    return tensors, (modes, required, chance, model.config._attn_implementation)


class Watcher(Progress):
    def __init__(self):
        self.seen = []

    def begin(self, what, total, done=0):
        self.seen.append((what, total))

    def advance(self, done, note=""):
        self.seen.append(done)

    def end(self):
        self.seen.append("end")
