"""Which parameters are displaced: exclusions, hooks, frozen, unused, empty and sparse ones."""

import pytest
import torch
from torch import nn

from tests.support.optimizers import bits, problem, two_passes
from trainflat.core.errors import InputError
from trainflat.optim import SAM


class Held:
    """A mask on the first weight, written by hand."""

    def __init__(self, model: nn.Sequential) -> None:
        self.weight, self.mask = model[0].weight, (torch.arange(24).reshape(6, 4) % 3 > 0).float()

    def mask_gradients(self) -> None:
        assert not torch.is_grad_enabled()
        if self.weight.grad is not None:
            self.weight.grad.mul_(self.mask)

    def mask_weights(self) -> None:
        with torch.no_grad():
            self.weight.mul_(self.mask)

    def factor(self, weight: torch.Tensor) -> torch.Tensor | None:
        return self.mask if weight is self.weight else None


def test_a_pruned_weight_is_not_displaced():
    model, passes = problem()
    optimizer = SAM(model.parameters(), rho=0.5)
    optimizer.held = held = Held(model)
    held.mask_weights()
    passes()
    with optimizer.perturbed():
        assert torch.equal(model[0].weight != 0, held.mask.bool())
        assert optimizer.last_norm.item() == pytest.approx(0.5)
    optimizer.held = None
    passes()
    with optimizer.perturbed():
        assert int((model[0].weight != 0).sum()) == 24


def test_frozen_and_unused_parameters_stay():
    model, passes = problem()
    model[0].weight.requires_grad_(False)
    unused = nn.Parameter(torch.ones(2))
    optimizer, before = SAM([*model.parameters(), unused], rho=0.5), bits(model)[0]
    two_passes(optimizer, passes)
    assert bits(model)[0] == before
    assert unused.tolist() == [1.0, 1.0]
    assert optimizer.last_norm.item() == pytest.approx(0.5)


def test_an_empty_parameter_has_no_largest_entry():
    w, empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.empty(0))
    w.grad, empty.grad = torch.ones(2), torch.empty(0)
    with SAM([w, empty], rho=0.5, p=float("inf")).perturbed():
        assert w.tolist() == [1.5, 1.5]


def test_nothing_to_displace_is_no_error():
    flat, empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.empty(0))
    flat.grad = torch.zeros(2)
    optimizer = SAM([flat, empty])
    with optimizer.perturbed():
        pass
    optimizer.step()
    assert optimizer.last_norm == 0


@pytest.mark.parametrize(
    ("exclude", "still"),
    [
        (["bias"], {"0.bias", "2.bias", "3.bias"}),
        (["*.bias", "2.weight"], {"0.bias", "2.bias", "3.bias", "2.weight"}),
        ("[03].*", {"0.weight", "0.bias", "3.weight", "3.bias"}),
        ([], set()),
    ],
)
def test_exclusions_by_name(exclude, still):
    model, passes = problem()
    optimizer = SAM(model.named_parameters(), rho=0.5, exclude=exclude)
    passes()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with optimizer.perturbed():
        moves = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    assert {name for name, move in moves.items() if not move.any()} == still
    total = torch.cat([move.flatten() for move in moves.values()]).norm()
    assert total.item() == pytest.approx(0.5, rel=1e-5)  # so the norm is that of the displaced ones only


def test_exclusions_hold_for_groups_added_later_and_after_loading():
    model, passes = problem()
    optimizer = SAM([{"params": model[0].named_parameters()}], exclude=["bias"])
    optimizer.add_param_group({"params": model[3].named_parameters()})
    optimizer.load_state_dict(optimizer.state_dict())
    passes()
    biases = [model[0].bias.detach().clone(), model[3].bias.detach().clone()]
    with optimizer.perturbed():
        assert torch.equal(model[0].bias, biases[0])
        assert torch.equal(model[3].bias, biases[1])


def test_exclusions_that_cannot_be():
    model, _ = problem()
    with pytest.raises(InputError, match=r"needs names: pass model\.named_parameters\(\)"):
        SAM(model.parameters(), exclude=["bias"])
    with pytest.raises(InputError, match=r"exclude='\*LayerNorm\*' matches no parameter.*'0\.weight'"):
        SAM(model.named_parameters(), exclude=["bias", "*LayerNorm*"])


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 2, sparse=True)
    optimizer, before = SAM(table.parameters(), torch.optim.SGD, lr=0.1), bits(table)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(InputError, match="needs dense gradients"), optimizer.perturbed():
        pytest.fail("the block must not run")
    assert bits(table) == before
