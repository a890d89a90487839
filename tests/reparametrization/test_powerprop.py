"""Powerpropagation: its formulas, and that training moves θ and nothing else notices."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from transformers import BertForSequenceClassification

import trainflat
from tests.conftest import tiny_bert
from tests.support.families import config, write
from tests.support.plain_loop import collate, random_split, train
from tests.support.runs import assert_sound, own_files, recipe
from tests.support.training import (
    ADAMW,
    NO_DROPOUT,
    SAM,
    StoppedError,
    accuracy,
    arguments,
    assert_same_weights,
    reproducible,
)
from tests.support.two_processes import on_two_processes
from trainflat.anatomy.params import prunable
from trainflat.cli.plans import print_plan
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import load_tensors
from trainflat.pruning import MagnitudePruner, RandomPruner
from trainflat.recipe import load_recipe
from trainflat.reparametrization import REPARAMETRIZATIONS, Powerprop
from trainflat.training import FlatTrainer, checkpoints

ALPHAS = pytest.mark.parametrize("alpha", [1.0, 1.3, 2.0, 3.5])


def layer(values: Tensor) -> nn.Linear:
    model = nn.Linear(len(values), 1, bias=False, dtype=values.dtype)
    with torch.no_grad():
        model.weight.copy_(values[None])
    return model


def power_of(theta: Tensor, alpha: float) -> Tensor:
    return theta * theta.abs().pow(alpha - 1)


@ALPHAS
def test_formulas_in_float64(alpha: float) -> None:
    weight = torch.tensor([-4.0, -0.3, -0.0, 0.0, 1e-12, 0.7, 30.0], dtype=torch.float64)
    power = Powerprop(layer(weight), alpha=alpha)
    theta = power.theta_of(weight)
    slow = torch.tensor([abs(w) ** (1 / alpha) * (1 if w > 0 else -1) for w in weight.tolist()], dtype=torch.float64)
    torch.testing.assert_close(theta, slow, rtol=1e-14, atol=0)
    torch.testing.assert_close(power.weight_of(theta), weight, rtol=1e-14, atol=0)
    assert torch.equal(theta == 0, weight == 0)
    assert torch.equal(torch.signbit(theta), torch.signbit(weight))


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30), st.sampled_from([1.0, 1.3, 2.0, 4.0]))
@settings(max_examples=80, deadline=None)
def test_float32_weights_come_back_to_a_few_units_in_the_last_place(values: list[float], alpha: float) -> None:
    weight = torch.tensor(values)
    power = Powerprop(layer(weight), alpha=alpha)
    theta = power.theta_of(weight)
    back = power.weight_of(theta)
    normal = weight.abs() > 1e-30
    assert ((back - weight).abs() <= (alpha + 1) * 2**-23 * weight.abs())[normal].all()
    assert torch.equal(weight == 0, theta == 0)
    order = weight.abs().argsort(stable=True)
    assert (theta.abs()[order].diff() >= 0).all()


@ALPHAS
def test_gradients_are_those_of_autograd_through_the_power_and_0_at_0(alpha: float) -> None:
    weight, x = torch.tensor([-2.0, 0.0, 0.5, 1.5], dtype=torch.float64), torch.tensor([[1.0, 2.0, -1.0, 0.3]]).double()
    model = layer(weight)
    with Powerprop(model, alpha=alpha).training() as power:
        theta = model.weight.detach().clone().requires_grad_()
        (x @ power_of(theta, alpha).T).square().sum().backward()
        for _ in range(2):  # added up, as micro-batches are
            with power.weights_in_place():
                model(x).square().sum().backward()
        wanted = 2 * theta.grad
        if alpha > 1:
            wanted[0, 1] = 0  # where autograd finds 0 or NaN
        torch.testing.assert_close(model.weight.grad, wanted, rtol=1e-12, atol=1e-14)
        assert torch.equal(model.weight, theta)
    torch.testing.assert_close(model.weight[0], weight, rtol=1e-14, atol=0)


def test_what_is_frozen_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    with Powerprop(model, alpha=3).training() as power:
        assert list(power.weights) == ["1.weight"]
    assert torch.equal(model[0].weight, before)


class Powered(nn.Module):
    """The same by autograd: its parameters are θ, and every forward pass takes the powers anew."""

    def __init__(self, model: nn.Module, alpha: float) -> None:
        super().__init__()
        self.inner, self.alpha, self.names = model, alpha, list(prunable(model))
        with torch.no_grad():
            for p in prunable(model).values():
                p.copy_(torch.sign(p) * p.abs().pow(1 / alpha))

    def weights(self) -> dict[str, Tensor]:
        return {n: power_of(p, self.alpha) if n in self.names else p for n, p in self.inner.named_parameters()}

    def forward(self, **batch: Tensor) -> Any:
        return functional_call(self.inner, self.weights(), (), batch)


def powered(folder: Path, optimizer: Any, section: Any, *, model: Any = None, **options: Any) -> FlatTrainer:
    trainer = FlatTrainer(
        tiny_bert(**NO_DROPOUT).double() if model is None else model,
        arguments(folder, **options),
        train_dataset=random_split(45),
        data_collator=collate,
        optimizer=optimizer,
        reparametrization=section,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", [ADAMW, SAM, {**SAM, "name": "esam", "beta": 1.0}], ids=["adamw", "sam", "esam"])
def test_takes_the_steps_of_a_loop_that_differentiates_the_powers(
    tmp_path: Path, accumulate: int, optimizer: dict[str, Any]
) -> None:
    """θ is decayed, clipped and displaced."""
    by_hand = Powered(tiny_bert(**NO_DROPOUT).double(), 1.7)
    train(by_hand, random_split(45), optimizer, epochs=2, batch_size=8, seed=3)
    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = powered(tmp_path, optimizer, {"name": "powerprop", "alpha": 1.7}, **cut)
    for name, weight in by_hand.weights().items():
        torch.testing.assert_close(trainer.model.get_parameter(name), weight, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "sync_perturbation": True}
    ranks = on_two_processes(tmp_path / "two", SAM, reparametrization="powerprop", max_steps=5, **cut)
    model = tiny_bert(**NO_DROPOUT).double()
    one = FlatTrainer(
        model,
        arguments(tmp_path / "one", max_steps=5),
        train_dataset=random_split(),
        data_collator=collate,
        optimizer=SAM,
        reparametrization="powerprop",
    )
    one.train()
    for name, weights in ranks[0].items():
        assert torch.equal(weights, ranks[1][name])
        torch.testing.assert_close(weights, model.get_parameter(name).detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("optimizer", [ADAMW, SAM], ids=["adamw", "sam"])
def test_zeros_never_move_without_any_mask_held(tmp_path: Path, optimizer: Any) -> None:
    for alpha, moved in ((2, False), (1, True)):
        model = tiny_bert(**NO_DROPOUT)
        masks = RandomPruner(model, sparsity=0.5).prune()
        powered(tmp_path, optimizer, {"name": "powerprop", "alpha": alpha}, model=model, num_train_epochs=1)
        assert any((w[~masks[n]] != 0).any() for n, w in prunable(model).items()) == moved


def test_alpha_1_changes_nothing_bit_for_bit(tmp_path: Path) -> None:
    one, other = (powered(tmp_path, SAM, section) for section in ({"name": "powerprop", "alpha": 1}, None))
    assert_same_weights(one.model, other.model, atol=0)


CUBE = {"name": "powerprop", "alpha": 3}  # of squares θ would come back from the weights to the bit


def student(folder: Path, section: Any = CUBE, **options: Any) -> FlatTrainer:
    """With dropout, masks, evaluations and checkpoints."""
    model = tiny_bert(hidden_dropout_prob=0.1)
    every = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 3, "logging_steps": 4}
    return FlatTrainer(
        model,
        arguments(folder, **(every | options)),
        train_dataset=random_split(),
        eval_dataset={"validation": random_split(20, seed=9)},
        data_collator=collate,
        optimizer=SAM,
        masks=MagnitudePruner(model, sparsity=0.5).prune(),
        reparametrization=section,
        score=accuracy,
    )


def interrupted(folder: Path, section: Any = CUBE) -> FlatTrainer:
    trainer = student(folder, section)
    step = trainer.training_step

    def stopping(*args: Any) -> Tensor:
        if trainer.state.global_step == 8:
            raise StoppedError
        return step(*args)

    trainer.training_step = stopping
    with pytest.raises(StoppedError):
        trainer.train()
    return trainer


def test_resuming_continues_the_same_path_and_checkpoints_hold_weights(tmp_path: Path) -> None:
    whole = student(tmp_path / "whole")
    whole.train()
    stopped = interrupted(tmp_path / "part")
    again = student(tmp_path / "part")
    newest = checkpoints.newest(tmp_path / "part")
    stored, (theta, _) = load_file(newest / "model.safetensors"), load_tensors(newest / "theta.safetensors")
    for name, one in theta.items():
        assert torch.equal(stored[name], (one.double() ** 3).float())
    again.train(resume_from_checkpoint=str(newest))
    assert_same_weights(whole.model, again.model, atol=0)
    assert reproducible(again) == reproducible(whole)
    whole.masks.check(whole.model)
    # Whatever ended it, a model holds weights: those that an evaluation sees.
    for model in (stopped.model, whole.model):
        assert model.bert.encoder.layer[0].intermediate.dense.weight.detach().abs().mean() < 0.05  # of θ it is 0.2


def test_the_best_checkpoints_weights_are_what_training_ends_with(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_validation_accuracy"}
    trainer = student(tmp_path, **best, greater_is_better=True)
    trainer.train()
    stored = load_file(checkpoints.path(tmp_path, trainer.state.best_global_step) / "model.safetensors")
    assert all(torch.equal(p, stored[name]) for name, p in trainer.model.named_parameters())
    logged = {
        e["step"]: e["eval_validation_accuracy"] for e in trainer.state.log_history if "eval_validation_loss" in e
    }
    assert trainer.evaluate()["eval_validation_accuracy"] == logged[trainer.state.best_global_step]


@pytest.mark.parametrize(("before", "after"), [("powerprop", None), (None, "powerprop")])
def test_a_checkpoint_goes_on_as_it_began(tmp_path: Path, before: Any, after: Any) -> None:
    interrupted(tmp_path, before)
    words = "with reparametrization and cannot go on without" if before else "without reparametrization and cannot"
    with pytest.raises(InputError, match=words):
        student(tmp_path, after).train(resume_from_checkpoint=str(checkpoints.newest(tmp_path)))


def test_refusals(tmp_path: Path) -> None:
    for alpha in (0.5, -1, float("inf"), "2", True):
        with pytest.raises(InputError, match=f"alpha of powerprop is a number >= 1, got {alpha!r}"):
            REPARAMETRIZATIONS.read({"name": "powerprop", "alpha": alpha})
    with pytest.raises(UnknownName, match=r"Did you mean 'powerprop'"):
        student(tmp_path, "powerprp")
    with pytest.raises(UnknownName, match=r"Did you mean 'alpha'"):
        student(tmp_path, {"name": "powerprop", "alpa": 2})
    with pytest.raises(InputError, match="name a reparametrization: powerprop"):
        student(tmp_path, {"alpha": 2})
    with pytest.raises(InputError, match="has no trainable matrices to reparametrise"):
        Powerprop(nn.LayerNorm(3))
    with pytest.raises(InputError, match="Choose one of them"):
        FlatTrainer(tiny_bert(), arguments(tmp_path), averaging="swa", reparametrization="powerprop")
    base = {"task": "cola", "model": "minilm"}
    with pytest.raises(InputError, match="training: averaging reads the trained parameters"):
        load_recipe(base | {"training": {"averaging": "swa", "reparametrization": "powerprop"}})
    with pytest.raises(InputError, match=r"training\.reparametrization: alpha of powerprop"):
        load_recipe(base | {"training": {"reparametrization": {"name": "powerprop", "alpha": 0}}})
    assert "reparametrization" not in load_recipe(base).resolved()["training"]
    assert all(REPARAMETRIZATIONS.summary(name).endswith(".") for name in REPARAMETRIZATIONS)


def test_a_run_prunes_rewinds_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Snapshots to rewind to hold weights as well."""
    torch.manual_seed(0)
    model = write(tmp_path / "model", BertForSequenceClassification(config("Bert")))
    given = recipe(model, own_files(tmp_path), reparametrization="powerprop")
    given |= {"protocol": {"name": "iterative", "sparsities": [0.5], "rewind": 2}}
    record = trainflat.run(given, out=tmp_path / "runs")
    assert_sound(record, tmp_path / "runs")
    run = next((tmp_path / "runs").iterdir())
    snapshot, _ = load_tensors(run / "rewind" / "weights.safetensors")
    before, after = load_file(model / "model.safetensors"), load_file(run / "stages" / "dense" / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert (snapshot[name] - before[name]).abs().max() < 0.05
    assert (after[name] - before[name]).abs().max() < 0.05
    print_plan(trainflat.plan(copy.deepcopy(given), out=tmp_path / "runs"))
    assert "powerprop" in capsys.readouterr().out
