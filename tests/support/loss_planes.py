"""A quadratic bowl and three BERTs whose loss planes are known, and whether a measurement left them alone."""

import torch
from torch import nn

from tests.conftest import tiny_bert
from trainflat.sharpness import Objective

CURVATURE = torch.tensor([[3.0, 0.5, 0.0], [0.5, 1.0, -0.2], [0.0, -0.2, 7.0]], dtype=torch.float64)


BOTTOM = torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64)


CORNERS = {"init": [2.0, 1.0, -1.0], "adam": [0.4, -1.0, 0.5], "sam": [0.1, -1.3, 0.9]}


class Weights(nn.Module):
    """Two weights of three entries in all, so that a norm over one of them only would be seen."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))


def quadratic(w):
    return 0.5 * (w - BOTTOM) @ CURVATURE @ (w - BOTTOM)


def loss_of(model, batch):
    return quadratic(torch.cat([model.a, model.b])) + 0 * batch["x"].sum()


def state(values):
    return {"a": torch.tensor(values[:2], dtype=torch.float64), "b": torch.tensor(values[2:], dtype=torch.float64)}


def bowl(**options):
    return Objective(Weights(), [{"x": torch.zeros(3)}], loss=loss_of, **options)


def corners():
    return {name: state(values) for name, values in CORNERS.items()}


def sentences(batches=2, rows=3, length=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 120, (batches, rows, length), generator=generator)
    labels = torch.randint(0, 2, (batches, rows), generator=generator)
    return [
        {"input_ids": i, "attention_mask": torch.ones_like(i), "labels": y} for i, y in zip(ids, labels, strict=True)
    ]


BERT = {f"model {seed}": tiny_bert(seed).state_dict() for seed in range(3)}


def snapshot(model):
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    return kept, modes, [p.requires_grad for p in model.parameters()], [p.grad for p in model.parameters()]


def assert_untouched(model, before, random):
    kept, modes, required, gradients = before
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == required
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random)
