"""The l1 penalty: the gradient of a penalised loss, on the weights that pruning may take."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from tests.support.optimizers import bits, problem
from trainflat.core.errors import InputError
from trainflat.optim import OPTIMIZERS, L1Penalty
from trainflat.pruning import Masks

PENALTY = 0.01


def test_it_is_the_base_on_a_penalised_loss():
    (one, _), (two, _) = problem(), problem()
    one, two, inputs = one.double(), two.double(), torch.randn(5, 12, 4, dtype=torch.float64)
    flat, base = L1Penalty(one.parameters(), AdamW, PENALTY, lr=0.02), AdamW(two.parameters(), lr=0.02)
    for batch in inputs:
        flat.zero_grad()
        base.zero_grad()
        one(batch).square().mean().backward()
        (two(batch).square().mean() + PENALTY * (two[0].weight.abs().sum() + two[3].weight.abs().sum())).backward()
        flat.step()
        base.step()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-14)


def test_a_penalty_of_0_is_the_base_bit_for_bit():
    (one, first), (two, second) = problem(), problem()
    flat, base = L1Penalty(one.parameters(), SGD, 0, lr=0.1), SGD(two.parameters(), lr=0.1)
    for _ in range(4):
        flat.step(first)
        second()
        base.step()
    assert bits(one) == bits(two)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings, self.query, self.classifier = nn.Embedding(3, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def pulled(self, optimizer) -> set[str]:
        before = {n: p.detach().clone() for n, p in self.named_parameters()}
        for p in self.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        return {n for n, p in self.named_parameters() if not torch.equal(p, before[n])}


@pytest.mark.parametrize(
    ("exclude", "pulled"),
    [
        (None, {"query.weight", "classifier.weight"}),
        (["word_embeddings", "classifier"], {"query.weight"}),
        ([], {"word_embeddings.weight", "query.weight", "classifier.weight"}),
    ],
    ids=["by-default", "named", "none"],  # a set has another text in each process
)
def test_which_weights_are_pulled(exclude, pulled):
    model = Encoder()
    assert model.pulled(L1Penalty(model.named_parameters(), SGD, 0.1, exclude=exclude, lr=0.1)) == pulled


def test_without_names_every_matrix_is_pulled_and_groups_have_penalties_of_their_own():
    model = Encoder()
    assert model.pulled(L1Penalty(model.parameters(), SGD, 0.1, lr=0.1)) == {
        "word_embeddings.weight",
        "query.weight",
        "classifier.weight",
    }
    groups = [{"params": model.query.parameters(), "rho": 0.0}, {"params": model.classifier.parameters()}]
    assert model.pulled(L1Penalty(groups, SGD, 0.1, lr=0.1)) == {"classifier.weight"}


def test_groups_that_come_later_spare_their_embeddings_too():
    model = Encoder()
    optimizer = L1Penalty([{"params": list(model.query.named_parameters())}], SGD, 0.1, lr=0.1)
    optimizer.add_param_group({"params": [("word_embeddings.weight", model.word_embeddings.weight)]})
    assert model.pulled(optimizer) == {"query.weight"}


def test_it_reaches_the_weights_whatever_the_scale_of_the_loss():
    """The scaler unscales gradients that are there before the step; the penalty comes after it."""
    (scaled, _), (plain, _) = problem(), problem()
    inputs, ends = torch.randn(12, 4), []
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    for model in (scaled, plain):
        optimizer = L1Penalty(model.parameters(), SGD, 0.1, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            if model is scaled:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
        ends.append(list(model.parameters()))
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_pruned_weights_stay_pruned():
    model, passes = problem()
    masks = Masks({"0.weight": torch.arange(24).reshape(6, 4) % 2 == 0})
    masks.apply_(model)
    optimizer = L1Penalty(model.parameters(), AdamW, 0.1, lr=0.1)
    with masks.hold(model).attach(optimizer):
        for _ in range(20):
            optimizer.step(passes)
            masks.check(model)


@pytest.mark.parametrize("value", [-1, "strong", float("inf")])
def test_values_that_do_not_fit(value):
    with pytest.raises(InputError, match=r"^penalty is a number >= 0, got "):
        OPTIMIZERS.read({"name": "l1", "penalty": value})
