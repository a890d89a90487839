"""Gates that are led to a budget: expected prices, their slopes, and what a shrunk model really has."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.gated_structure import begun
from tests.support.structured import random_model
from trainflat.core.errors import InputError
from trainflat.pruning.gates import CoFi, ExpectedPrice
from trainflat.pruning.structured import MultiplyAdds, Parameters, shrink
from trainflat.pruning.structured.budgets import Budget, Prices
from trainflat.pruning.structured.sub_layers import SubLayer, sub_layers


class Steps(Budget):
    """Prices by steps, as times are: something for no units, a jump to the first, then one more at every third."""

    unit = "steps"

    def prices(self, model: torch.nn.Module, subs: list[SubLayer]) -> Prices:  # type: ignore[override]
        own = [np.array([1.5, *(5.0 + k // 3 + n for k in range(len(sub.units)))]) for n, sub in enumerate(subs)]
        return Prices(tuple(own), 7.0, 20.0)


BUDGETS = {"parameters": Parameters(share=0.5), "multiply-adds": MultiplyAdds(0.5), "steps": Steps()}


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("family", ["Bert", "ModernBert", "Albert"])
def test_expected_prices_and_slopes_are_those_of_a_slow_sum(family: str, name: str) -> None:
    model, budget = random_model(family), BUDGETS[name]
    gate = begun(model, hidden=False, budget=budget)
    size = gate.pressure.size
    assert isinstance(size, ExpectedPrice)
    subs = sub_layers(model)
    prices = budget.prices(model, subs)
    assert gate.pressure.target == size.target == pytest.approx(1 - prices.limit / prices.dense)
    chances = {n: p.requires_grad_() for n, p in gate.pressure.chances(gate.scores).items()}

    def slow() -> Tensor:
        spent: Tensor = torch.tensor(prices.fixed, dtype=torch.float64)
        for sub, own in zip(subs, prices.widths, strict=True):
            units = "head" if sub.kind == "attention" else "feed-forward unit"
            width = chances[f"{units} {sub.place}"].sum()
            # Interpolation as a sum of ramps, one from each width to the next.
            ramps = sum((width - k).clamp(0, 1) * (own[k + 1] - own[k]) for k in range(len(sub.units)))
            spent = spent + own[0] + chances[f"{sub.kind} sub-layer {sub.place}"][0] * ramps
        return 1 - spent / prices.dense

    wanted = torch.autograd.grad(slow(), [*chances.values()])
    found, slopes = size.sparsity({n: p.detach() for n, p in chances.items()})
    assert float(found) == pytest.approx(float(slow().detach()), rel=1e-12)
    for n, one in zip(chances, wanted, strict=True):
        torch.testing.assert_close(slopes[n], one, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_gone_is_what_the_shrunk_model_does_not_have(seed: int) -> None:
    model = random_model("Bert")
    gate = begun(model, seed=seed, hidden=False, budget=Parameters(share=0.5))
    # Sub-layers that are skipped lose their LayerNorm and bias too, which no width has a price for.
    for name, score in gate.scores.items():
        if "sub-layer" in name:
            score.data.fill_(4.0)
    kept, size = gate.kept(), gate.pressure.size
    dense, small = (
        sum(p.numel() for n, p in m.named_parameters() if ".layer." in n) for m in (model, shrink(model, kept))
    )
    assert isinstance(size, ExpectedPrice) and size.price(kept) == small
    assert size.gone(kept) == gate.logs()["sparsity"] == pytest.approx(1 - small / dense)


def test_a_skipped_sub_layer_has_the_price_of_no_units() -> None:
    model = random_model("Bert")
    gate = begun(model, hidden=False, budget=Steps())
    for name, score in gate.scores.items():
        score.data.fill_(-4.0 if "sub-layer" in name else 4.0)
    size = gate.pressure.size
    assert isinstance(size, ExpectedPrice) and size.price(gate.kept()) == size.fixed + 1.5 * len(size.parts)


def test_a_budget_that_does_not_fit_is_refused() -> None:
    model = random_model("Bert")
    with pytest.raises(InputError, match="hidden to false"):
        CoFi(model, budget=Parameters(share=0.5))
    with pytest.raises(InputError, match="budget is an object"):
        CoFi(model, hidden=False, budget="half")
    gate = CoFi(model, hidden=False, budget=Parameters(count=10), score_lr=1.0)
    with pytest.raises(InputError, match="can reach"):
        gate.begin(40)
