"""Averages of weights against closed forms, a slow reference and torch's own."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainflat.averaging import AVERAGING, EMA, SWA, Averaging, models_taken

values = st.lists(st.floats(-1e3, 1e3, allow_nan=False), min_size=1, max_size=12)


class Path(nn.Module):
    """One weight in float64 that is led along a list of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def walk(self, average: Averaging, numbers: list[float]) -> float:
        """Takes in each of them; gives the average."""
        for number in numbers:
            nn.init.constant_(self.weight, number)
            average.collect()
        with average.swapped_in():
            return self.weight.item()


@given(values)
@settings(max_examples=50, deadline=None)
def test_swa_is_the_mean(numbers: list[float]) -> None:
    model = Path()
    assert model.walk(SWA(model), numbers) == pytest.approx(math.fsum(numbers) / len(numbers), rel=1e-12, abs=1e-10)


@given(values, st.floats(0, 0.9999))
@settings(max_examples=50, deadline=None)
def test_ema_is_the_geometric_sum(numbers: list[float], decay: float) -> None:
    """w_EMA = d^n w_0 + (1 - d) sum_k d^(n-k) w_k."""
    model, last = Path(), len(numbers) - 1
    weighted = [(1 - decay) * decay ** (last - k) * number for k, number in enumerate(numbers) if k]
    expected = math.fsum([decay**last * numbers[0], *weighted])
    assert model.walk(EMA(model, decay=decay, warmup=False), numbers) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@given(values, st.floats(0, 0.9999))
@settings(max_examples=50, deadline=None)
def test_warmed_up_ema_keeps_no_more_than_a_share_that_grows(numbers: list[float], decay: float) -> None:
    """Every model's weight is what later decays left of its share; d_n = min(decay, (1 + n) / (10 + n))."""
    model = Path()
    kept = [0.0] + [min(decay, (1 + n) / (10 + n)) for n in range(1, len(numbers))]
    weights = [(1 - kept[k]) * math.prod(kept[k + 1 :]) for k in range(len(numbers))]
    assert math.fsum(weights) == pytest.approx(1)
    expected = math.fsum(w * number for w, number in zip(weights, numbers, strict=True))
    assert model.walk(EMA(model, decay=decay), numbers) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def steps_taken(average: Averaging, total_steps: int, steps_per_epoch: int) -> list[int]:
    return [step for step in range(1, total_steps + 1) if average.takes(step, total_steps, steps_per_epoch)]


def test_swa_takes_the_papers_checkpoints() -> None:
    """Na et al. 2022: 10 epochs: ends of 6 to 10; 3 epochs: after 2, 2.5 and 3. RTE's and MNLI's numbers of steps."""
    model = nn.Linear(1, 1)
    assert steps_taken(SWA(model), 780, 78) == [468, 546, 624, 702, 780]
    assert steps_taken(SWA(model, every=0.5), 36816, 12272) == [24544, 30680, 36816]
    assert steps_taken(SWA(model, every=0.5), 15, 5) == [10, 13, 15]  # half an epoch ends within the 13th step
    assert steps_taken(EMA(model, every=4), 15, 5) == [4, 8, 12]


@given(
    st.sampled_from([0.0, 0.25, 0.5, 0.7, 0.9]),
    st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.0, 1.5, 2.0]),
    st.integers(1, 40),
    st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_swa_takes_each_multiple_behind_the_start(start: float, every: float, per_epoch: int, epochs: int) -> None:
    """Multiple by multiple, in exact decimals: the step in which it ends, if it lies behind the start."""
    total, expected, multiple = per_epoch * epochs, set(), 1
    while (place := multiple * Fraction(str(every)) * per_epoch) <= total:
        if place > Fraction(str(start)) * total:
            expected.add(math.ceil(place))
        multiple += 1
    average = SWA(nn.Linear(1, 1), start=start, every=every)
    assert steps_taken(average, total, per_epoch) == sorted(expected)
    if expected:
        settings = AVERAGING.read({"name": "swa", "start": start, "every": every})
        assert models_taken(settings, total, per_epoch) == len(expected)


class Net(nn.Module):
    """Matrices, LayerNorm and a running buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 1)
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(torch.tanh(self.inner(inputs)))
        self.seen.lerp_(hidden.detach().mean(0), 0.1)
        return self.outer(hidden)


@pytest.mark.parametrize("name", ["swa", "ema"])
def test_torchs_averaged_model_is_the_same_step_for_step(name: str) -> None:
    torch.manual_seed(0)
    model = Net()
    average = SWA(model) if name == "swa" else EMA(model, decay=0.9, warmup=False)
    torchs = AveragedModel(model, multi_avg_fn=None if name == "swa" else get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(8):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
        average.collect()
        torchs.update_parameters(model)
        with average.swapped_in():
            assert model.state_dict().keys() == torchs.module.state_dict().keys()
            for key, expected in torchs.module.state_dict().items():
                torch.testing.assert_close(model.state_dict()[key], expected, rtol=1e-6, atol=1e-7)
    assert average.models == int(torchs.n_averaged) == 8


def test_counters_are_those_of_the_last_model() -> None:
    """A mean of numbers of batches means nothing."""
    model = nn.BatchNorm1d(3)
    average = SWA(model)
    for batches in range(1, 4):
        model(torch.randn(8, 3) + batches)
        average.collect()
        model.weight.data.fill_(batches)
    assert average.state_dict()["average.num_batches_tracked"].item() == 3
    assert average.state_dict()["average.weight"].mean().item() == pytest.approx(4 / 3)  # of 1, 1 and 2
