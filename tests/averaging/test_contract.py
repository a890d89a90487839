"""The contract that every member of the averaging table keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainflat.averaging import AVERAGING, Averaging, models_taken
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import load_tensors, save_tensors
from trainflat.pruning import MagnitudePruner
from trainflat.training.features.averaging import AveragingFeature

names = pytest.mark.parametrize("name", AVERAGING)
EVERY_MODEL: dict[str, dict[str, Any]] = {"swa": {"start": 0.0}, "ema": {}}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in model.state_dict().items()}


def move(model: nn.Module, seed: int) -> None:
    """Stands for a training step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=0.1)


def averaged(name: str, model: nn.Module, models: int = 3) -> Averaging:
    average = AVERAGING.make(name, model, **EVERY_MODEL[name])
    for seed in range(models):
        move(model, seed)
        average.collect()
    return average


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Values, identity and storage of every tensor."""
    before, places = bits(model), [(id(p), p.data_ptr()) for p in model.parameters()]
    yield
    assert bits(model) == before
    assert [(id(p), p.data_ptr()) for p in model.parameters()] == places


def test_the_contract_is_for_all() -> None:
    assert EVERY_MODEL.keys() == AVERAGING.keys()


@names
def test_says_what_it_is_and_when_it_takes(name: str) -> None:
    assert AVERAGING.summary(name).endswith(".")
    average = AVERAGING.make(name, network(), **EVERY_MODEL[name])
    assert [average.update(step, 4, 2) for step in range(1, 5)][-1]  # a training's last weights belong to it
    assert average.models == models_taken(AVERAGING.read({"name": name, **EVERY_MODEL[name]}), 4, 2) > 0


@names
def test_stands_in_and_gives_the_weights_back(name: str) -> None:
    model = network()
    average = averaged(name, model)
    with torch.no_grad():
        model[0].weight[0, 0] = -0.0
    before = bits(model)
    with unchanged(model), average.swapped_in():
        inside = bits(model)
        model[2].bias.data.add_(1)  # what happens inside is forgotten
    assert inside != before
    with unchanged(model), pytest.raises(KeyError), average.swapped_in():
        raise KeyError
    with average.swapped_in():
        assert bits(model) == inside
    average.copy_to_model()
    assert bits(model) == inside


@names
def test_an_exception_half_way_into_the_average_leaves_no_trace(name: str) -> None:
    model = network()
    average = averaged(name, model)
    del average._average["2.weight"]
    with unchanged(model), pytest.raises(KeyError), average.swapped_in():
        pass


@names
def test_with_no_model_the_weights_stay(name: str) -> None:
    model = network()
    average = AVERAGING.make(name, model)
    with unchanged(model):
        with average.swapped_in(), unchanged(model):
            pass
        average.copy_to_model()


@names
def test_training_goes_on_as_if_nothing_had_stood_in(name: str) -> None:
    def trained(*, looks: bool) -> dict[str, bytes]:
        model, inputs = network(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        average = AVERAGING.make(name, model, **EVERY_MODEL[name])
        for step in range(1, 7):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
            average.update(step, 6, 2)
            if looks:
                with average.swapped_in(), torch.no_grad():
                    model(inputs)
        return bits(model)

    assert trained(looks=True) == trained(looks=False)


@names
def test_pruned_weights_stay_zero(name: str) -> None:
    model = network()
    masks = MagnitudePruner(model, sparsity=0.7).prune()
    average = AVERAGING.make(name, model, **EVERY_MODEL[name])
    for seed in range(5):
        move(model, seed)
        masks.apply_(model)
        average.collect()
    with average.swapped_in():
        masks.check(model)
        zeros = sum(int((w == 0).sum()) for n, w in model.named_parameters() if n in masks)
    assert zeros == masks.zeros > 0


@names
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_full(name: str, dtype: torch.dtype) -> None:
    """Steps of a slow average are smaller than what half precision can add."""
    full, half = network(), network().to(dtype)
    options = {"start": 0.0} if name == "swa" else {"decay": 0.999, "warmup": False}
    one, two = AVERAGING.make(name, full, **options), AVERAGING.make(name, half, **options)
    for seed in range(300):
        move(half, seed)
        full.load_state_dict(half.state_dict())  # the rounded weights, in float32
        one.collect()
        two.collect()
    one.copy_to_model()
    two.copy_to_model()
    for p, q in zip(full.parameters(), half.parameters(), strict=True):
        assert q.dtype == dtype
        assert torch.equal(p.to(dtype), q)


@names
def test_tied_weights_are_one(name: str, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.decoder = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.decoder.weight = self.embedding.weight

    model = Tied()
    average = averaged(name, model)
    assert set(average.state_dict()) == {"models", "average.embedding.weight"}
    save_tensors(tmp_path / "average", average.state_dict())
    with unchanged(model), average.swapped_in():
        assert model.decoder.weight is model.embedding.weight
        assert torch.equal(model.decoder.weight, average.state_dict()["average.embedding.weight"])


@names
def test_frozen_and_trained_weights_alike(name: str) -> None:
    model = network().requires_grad_(False)
    model[2].requires_grad_(True)
    frozen = model[0].weight.clone()
    average = AVERAGING.make(name, model, **EVERY_MODEL[name])
    for seed in range(7):
        move(model[2], seed)
        average.collect()
    average.copy_to_model()
    assert torch.equal(model[0].weight, frozen)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


@names
@given(models=st.integers(0, 9), saved_after=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_saved_at_any_point_it_goes_on_to_the_same_bits(
    name: str, tmp_path_factory: pytest.TempPathFactory, models: int, saved_after: int
) -> None:
    saved_after = min(saved_after, models)
    model = network()
    whole = averaged(name, model, models)

    begun = network()
    path = tmp_path_factory.mktemp("average") / "average.safetensors"
    save_tensors(path, averaged(name, begun, saved_after).state_dict())
    again = AVERAGING.make(name, begun, **EVERY_MODEL[name])
    again.load_state_dict(load_tensors(path)[0])
    for seed in range(saved_after, models):
        move(begun, seed)
        again.collect()

    assert again.models == whole.models == models
    assert again.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(tensor, whole.state_dict()[key]) for key, tensor in again.state_dict().items())
    with whole.swapped_in(), again.swapped_in():
        assert bits(begun) == bits(model)


@names
def test_a_state_is_a_copy_of_nobodys(name: str) -> None:
    model = network()
    average = averaged(name, model)
    loaded = AVERAGING.make(name, model)
    loaded.load_state_dict(average.state_dict())
    before = {key: tensor.clone() for key, tensor in loaded.state_dict().items()}
    move(model, 9)
    average.collect()
    assert all(torch.equal(tensor, before[key]) for key, tensor in loaded.state_dict().items())


@names
def test_a_state_of_another_model_is_refused(name: str) -> None:
    state = averaged(name, network()).state_dict()
    average = averaged(name, network())
    before = average.state_dict()
    wrong = {
        "another shape": state | {"average.0.weight": torch.zeros(6, 5)},
        "one more": state | {"average.4.weight": torch.zeros(2)},
        "one less": {key: tensor for key, tensor in state.items() if key != "average.2.bias"},
        "no count": {key: tensor for key, tensor in state.items() if key != "models"},
    }
    for given_state in wrong.values():
        with pytest.raises(InputError, match=r"the average is of another model: .* differs\. Resume with the same"):
            average.load_state_dict(given_state)
    assert average.state_dict() == before  # the same tensors: nothing was half taken over


NO_SHARE, NO_EPOCHS = "start is a share of the training, in \\[0, 1\\), got", "every is a number of epochs > 0, got"
NO_DECAY, NO_STEPS = "decay is a share, in \\[0, 1\\), got", "every is a whole number of steps >= 1, got"
NAN, HUGE = float("nan"), 10**400
BAD: list[tuple[str, dict[str, Any], str]] = [
    *(("swa", {"start": value}, NO_SHARE) for value in (-0.1, 1, NAN, "0.5", True, None, HUGE)),
    *(("swa", {"every": value}, NO_EPOCHS) for value in (0, -1, float("inf"), "epoch", True, HUGE)),
    *(("ema", {"decay": value}, NO_DECAY) for value in (1, 1.5, -1e-9, NAN, "0.9", False)),
    *(("ema", {"every": value}, NO_STEPS) for value in (0, 1.5, -2, float("inf"), "3", True, HUGE)),
    ("ema", {"warmup": 1}, "warmup is true or false, got 1"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_bad_values_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    for attempt in (
        lambda: AVERAGING.make(name, network(), **options),
        lambda: AVERAGING.read({"name": name, **options}),
        lambda: AveragingFeature({"name": name, **options}),
    ):
        with pytest.raises(InputError, match=message) as error:
            attempt()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["evry", "model"])
@names
def test_unknown_names(name: str, option: str) -> None:
    with pytest.raises(UnknownName, match=f"no option of averaging '{name}' is called '{option}'"):
        AVERAGING.read({"name": name, option: 1})


def test_unknown_members_and_none() -> None:
    with pytest.raises(UnknownName, match=r"no averaging is called 'sma'\. Did you mean 'swa'"):
        AVERAGING.make("sma", network())
    for nameless in ({}, {"every": 0.5}):
        with pytest.raises(InputError, match="name an averaging: swa, ema"):
            AveragingFeature(nameless)


@names
def test_a_training_too_short_for_it_is_refused(name: str) -> None:
    options = {"every": 7}
    with pytest.raises(InputError, match=rf"averaging {name} \(.*every 7.*\) would average no model in 6 steps, 2 per"):
        models_taken(AVERAGING.read({"name": name, **options}), total_steps=6, steps_per_epoch=2)


@names
def test_words_and_their_completion_mean_the_same(name: str) -> None:
    complete = AVERAGING.read(name).dump()
    assert complete.keys() == AVERAGING.options(name).keys()
    assert complete == AVERAGING.read({"name": name, **complete}).dump()
    assert all(parameter.default == complete[key] for key, parameter in AVERAGING.options(name).items())
