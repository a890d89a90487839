"""Repairs of output matrices against NumPy's least squares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.pruning.structured.layerwise import Seen
from trainflat.pruning.structured.moments import Moments
from trainflat.pruning.structured.repairs import REPAIRS, Damage


def damaged(width: int, biased: bool, seed: int = 0) -> tuple[Damage, Tensor, Tensor]:
    """Twelve columns of which units are gone, with correlated inputs of which the means are not 0."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 12, generator=draws).double() @ torch.randn(12, 12, generator=draws).double() + 1
    weight = torch.randn(5, 12, generator=draws).double()
    bias = torch.randn(5, generator=draws).double() if biased else None
    t = x @ weight.T + torch.randn(50, 5, generator=draws).double() + (0 if bias is None else bias)
    kept = (torch.arange(12 // width) % 3 != 1).repeat_interleave(width)
    moments = Moments.of([Seen(x[:20], t[:20]), Seen(x[20:], t[20:])])
    return Damage(weight, bias, kept, width, moments), x, t


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("width", [1, 2])
def test_least_squares_is_numpys(width: int, biased: bool) -> None:
    damage, x, t = damaged(width, biased)
    weight, bias = REPAIRS.build("least-squares", ridge=0.01).repaired(damage)
    kept = damage.kept.nonzero().flatten()
    about = x - x.mean(0) if biased else x
    pull = (0.01 * about.square().mean() * len(x)).sqrt()  # rows that want the dense weights
    left = torch.cat([about[:, kept], pull * torch.eye(len(kept)).double()]).numpy()
    right = torch.cat([t - t.mean(0) if biased else t, pull * damage.weight[:, kept].T]).numpy()
    expected = np.linalg.lstsq(left, right)[0].T
    np.testing.assert_allclose(weight[:, kept].numpy(), expected, rtol=1e-8, atol=1e-10)
    assert not weight[:, ~damage.kept].any()
    if biased:
        assert bias is not None
        torch.testing.assert_close(bias, t.mean(0) - weight @ x.mean(0))
    else:
        assert bias is None


def test_a_bias_is_all_that_an_empty_sub_layer_has() -> None:
    damage, _, t = damaged(1, biased=True)
    nothing = Damage(damage.weight, damage.bias, torch.zeros(12, dtype=torch.bool), 1, damage.moments)
    weight, bias = REPAIRS.build("least-squares").repaired(nothing)
    assert not weight.any()
    torch.testing.assert_close(bias, t.mean(0))
    for name in ("none", "rescale"):
        weight, bias = REPAIRS.build(name).repaired(nothing)
        assert not weight.any()
        assert bias is damage.bias


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_rescaling_is_damped_least_squares_of_factors(width: int, biased: bool) -> None:
    damage, x, t = damaged(width, biased)
    weight, bias = REPAIRS.build("rescale").repaired(damage)
    units = [slice(i, i + width) for i in range(0, 12, width) if damage.kept[i]]
    parts = np.stack([(x[:, one] @ damage.weight[:, one].T).numpy().ravel() for one in units], 1)
    target = (t if damage.bias is None else t - damage.bias).numpy().ravel()
    left = np.concatenate([parts, np.eye(len(units))])
    factors = np.linalg.lstsq(left, np.concatenate([target, np.ones(len(units))]))[0]
    for one, factor in zip(units, factors, strict=True):
        torch.testing.assert_close(weight[:, one], float(factor) * damage.weight[:, one], rtol=1e-8, atol=0)
    assert not weight[:, ~damage.kept].any()
    assert bias is damage.bias


def test_rescaling_stops_at_a_factor_beyond_ten() -> None:
    damage, x, t = damaged(1, biased=False)
    wild = Damage(damage.weight, None, damage.kept, 1, Moments.of([Seen(x, 30 * t)]))
    repair = REPAIRS.build("rescale")
    for one in (wild, damage):  # the later one is not rescaled either
        assert torch.equal(repair.repaired(one)[0], one.masked())
    assert not torch.equal(REPAIRS.build("rescale").repaired(damage)[0], damage.masked())


def test_a_ridge_is_above_zero() -> None:
    with pytest.raises(InputError, match="ridge is a multiple of the mean square of an input, above 0, got 0"):
        REPAIRS.build("least-squares", ridge=0)


def test_constant_inputs_have_a_solution() -> None:
    """Dead units, of which the data says nothing, keep their weights."""
    damage, _, t = damaged(1, biased=True)
    x = torch.ones(50, 12).double()
    constant = Damage(damage.weight, damage.bias, damage.kept, 1, Moments.of([Seen(x, t)]))
    weight, bias = REPAIRS.build("least-squares").repaired(constant)
    torch.testing.assert_close(weight, damage.masked(), rtol=0, atol=1e-3)
    assert bias is not None
    torch.testing.assert_close(x[0] @ weight.T + bias, t.mean(0))
