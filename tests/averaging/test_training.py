"""Averaging in FlatTrainer: the plain loop's average, evaluated in place of the weights, and kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback

from tests.conftest import tiny_bert
from tests.support.averaging import EMA, MEMBERS, SWA, State, Watched, same, state_of
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split, train
from tests.support.training import ADAMW, NO_DROPOUT, SAM, arguments, assert_same_weights
from tests.support.two_processes import on_two_processes
from trainflat.averaging import AVERAGING
from trainflat.core.errors import InputError, ZerosRevived
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer

FLAT = {
    "adamw": ADAMW,
    "sam": SAM,
    "msam": {**SAM, "name": "msam"},
    "entropy-sgd": {"name": "entropy-sgd", "lr": 1e-3, "inner_steps": 2},
}


def double_trainer(folder: Path, recipe: Any, averaging: Any, *, rows: int = 48, **options: Any) -> FlatTrainer:
    model = tiny_bert(**NO_DROPOUT).double()
    masks = MagnitudePruner(model, sparsity=0.6).prune()
    settings = arguments(folder, **options)
    trainer = FlatTrainer(
        model,
        settings,
        train_dataset=random_split(rows),
        data_collator=collate,
        optimizer=recipe,
        masks=masks,
        averaging=averaging,
    )
    trainer.train()
    return trainer


PAIRS = [(name, averaging) for name in FLAT for averaging in (SWA, EMA)]


@pytest.mark.parametrize(
    "case", quick(PAIRS, ("adamw", SWA), ("sam", EMA), ("msam", SWA), ("entropy-sgd", EMA)), ids=str
)
def test_averages_what_a_plain_loop_averages(tmp_path: Path, case: tuple[str, dict[str, Any]]) -> None:
    """Masked, with a ragged last window, and cut into micro-batches: always the undisplaced weights after a step."""
    recipe, averaging = FLAT[case[0]], case[1]
    by_hand = tiny_bert(**NO_DROPOUT).double()
    masks = MagnitudePruner(by_hand, sparsity=0.6).prune()
    options = {"epochs": 2, "batch_size": 8, "seed": 3, "masks": masks}
    train(by_hand, random_split(45), recipe, averaging=averaging, **options)

    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trainer = double_trainer(tmp_path, recipe, averaging, rows=45, **cut)
    assert_same_weights(trainer.model, by_hand)
    masks.check(trainer.model)
    assert trainer.features["averaging"].models == (2 if averaging is SWA else 12)

    last = tiny_bert(**NO_DROPOUT).double()
    MagnitudePruner(last, sparsity=0.6).prune()
    train(last, random_split(45), recipe, **options)
    assert not close(state_of(last), state_of(by_hand))


@pytest.mark.long
def test_two_processes_hold_the_average_of_one(tmp_path: Path) -> None:
    options = {"averaging": SWA, "sparsity": 0.6, "sync_perturbation": True}
    ranks = on_two_processes(tmp_path / "two", SAM, per_device_train_batch_size=4, **options)
    one = dict(double_trainer(tmp_path / "one", SAM, SWA).model.named_parameters())
    for name, weights in ranks[0].items():
        assert torch.equal(weights, ranks[1][name])
        torch.testing.assert_close(weights, one[name].detach(), rtol=0, atol=1e-10)


def mean(states: list[State]) -> State:
    return {name: torch.stack([s[name].double() for s in states]).mean(0).float() for name in states[0]}


def close(one: State, other: State) -> bool:
    return all(torch.allclose(tensor, other[name], rtol=0, atol=1e-6) for name, tensor in one.items())


def averages_by_hand(watched: Watched, averaging: dict[str, Any], steps: int) -> dict[int, State]:
    """The average as it is after each step; the weights themselves, as long as there is none."""
    model = tiny_bert()
    average = AVERAGING.make(averaging["name"], model, **{k: v for k, v in averaging.items() if k != "name"})
    found = {}
    for step in range(1, steps + 1):
        model.load_state_dict(watched.raw[step])
        average.update(step, steps, 6)
        with average.swapped_in():
            found[step] = state_of(model)
    return found


@MEMBERS
def test_stands_in_for_the_weights_at_evaluations_only(tmp_path: Path, averaging: dict[str, Any]) -> None:
    watched = Watched(tmp_path, averaging, load_best_model_at_end=False)
    trainer = watched.trainer
    trainer.evaluate()
    assert same(watched.scored.pop(0), state_of(trainer.model))  # nothing is averaged yet
    trainer.train()
    expected = averages_by_hand(watched, averaging, 24)
    assert watched.scored.keys() == {6, 12, 18, 24}
    for step, state in watched.scored.items():
        assert same(state, expected[step])
        assert same(watched.after[step], watched.raw[step])
    if averaging is SWA:
        assert same(watched.scored[12], watched.raw[12])
        assert close(watched.scored[18], mean([watched.raw[s] for s in (15, 18)]))
    assert same(state_of(trainer.model), expected[24])
    logged = [e["averaged_models"] for e in trainer.state.log_history if "eval_validation_accuracy" in e]
    assert logged == ([0, 0, 2, 4] if averaging is SWA else [6, 12, 18, 24])
    after = trainer.evaluate()
    assert same(watched.scored[24], expected[24])
    assert after["eval_validation_accuracy"] == trainer.state.log_history[-1]["eval_validation_accuracy"]


def test_averaging_changes_no_step(tmp_path: Path) -> None:
    averaged = Watched(tmp_path / "averaged", SWA, load_best_model_at_end=False)
    averaged.trainer.train()
    plain = Watched(tmp_path / "plain", None, load_best_model_at_end=False)
    plain.trainer.train()
    assert all(same(state, plain.raw[step]) for step, state in averaged.raw.items())
    assert not any("averaged_models" in entry for entry in plain.trainer.state.log_history)


def test_the_best_is_an_average_and_is_what_remains(tmp_path: Path) -> None:
    """High scores of weights that training will not end with do not count."""
    watched = Watched(tmp_path, SWA, {6: 99.0, 12: 98.0, 18: 60.0, 24: 50.0})
    watched.trainer.train()
    state = watched.trainer.state
    assert (state.best_global_step, state.best_metric, watched.trainer.features["averaging"].models) == (18, 60.0, 2)
    assert same(state_of(watched.trainer.model), watched.scored[18])
    assert not same(watched.scored[18], watched.scored[24])


class StopsAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize(("step", "models"), [(8, 0), (16, 1)])
def test_what_remains_where_no_average_was_evaluated(tmp_path: Path, step: int, models: int) -> None:
    """The user stops before: the average as it is then, or where it is empty the weights."""
    watched = Watched(tmp_path, SWA, callbacks=[StopsAt(step)], eval_strategy="no", load_best_model_at_end=False)
    watched.trainer.train()
    assert (watched.trainer.state.global_step, watched.trainer.features["averaging"].models) == (step, models)
    assert same(state_of(watched.trainer.model), watched.raw[8 if step == 8 else 15])


def test_patience_begins_with_the_average(tmp_path: Path) -> None:
    scores = {6: 99.0, 12: 50.0, 18: 60.0, 24: 55.0, 30: 70.0}
    stop = {"num_train_epochs": 5, "callbacks": [EarlyStoppingCallback(1)]}
    watched = Watched(tmp_path, SWA, scores, **stop)
    watched.trainer.train()
    assert watched.trainer.state.global_step == 24
    assert same(state_of(watched.trainer.model), watched.scored[18])


def test_an_exception_in_an_evaluation_leaves_the_weights(tmp_path: Path) -> None:
    watched = Watched(tmp_path, SWA, {6: 1.0, 12: 1.0})
    with pytest.raises(KeyError):  # there is no score for step 18
        watched.trainer.train()
    assert not same(watched.scored[18], watched.raw[18])
    assert same(state_of(watched.trainer.model), watched.raw[18])


@pytest.mark.parametrize("skipped", ["eval_strategy", "save_strategy"])
def test_a_zero_that_the_average_revives_is_seen(tmp_path: Path, skipped: str) -> None:
    watched = Watched(tmp_path, SWA, load_best_model_at_end=False, **{skipped: "no"})
    average, masks = watched.trainer.features["averaging"], watched.trainer.masks
    name, mask = next(iter(masks.items()))
    update = average.stepped

    def reviving(step: int) -> None:
        update(step)
        if step == 18:
            average._average.state_dict()[f"average.{name}"].masked_fill_(~mask, 1e-8)

    average.stepped = reviving
    with pytest.raises(ZerosRevived, match=name.replace(".", r"\.")):
        watched.trainer.train()


def test_a_second_training_begins_its_own_average(tmp_path: Path) -> None:
    watched = Watched(tmp_path, SWA, load_best_model_at_end=False)
    watched.trainer.train()
    watched.trainer.train()
    assert watched.trainer.features["averaging"].models == 4
    assert same(state_of(watched.trainer.model), averages_by_hand(watched, SWA, 24)[24])


def test_a_model_made_by_model_init_is_the_one_that_is_averaged(tmp_path: Path) -> None:
    def made() -> nn.Module:
        return tiny_bert()

    trainer = FlatTrainer(
        model_init=made,
        args=arguments(tmp_path),
        train_dataset=random_split(),
        data_collator=collate,
        optimizer=ADAMW,
        averaging="ema",
    )
    trainer.train()
    ends = tiny_bert()
    ends.load_state_dict(_average(trainer))
    assert_same_weights(trainer.model, ends, atol=0)


def _average(trainer: FlatTrainer) -> State:
    state = trainer.features["averaging"]._average.state_dict()
    return {key.removeprefix("average."): tensor for key, tensor in state.items() if key != "models"}


def test_bf16_autocast_averages_in_float32(tmp_path: Path) -> None:
    watched = Watched(tmp_path, SWA, bf16=True, load_best_model_at_end=False)
    watched.trainer.train()
    assert {tensor.dtype for tensor in _average(watched.trainer).values()} == {torch.float32}
    assert same(state_of(watched.trainer.model), averages_by_hand(watched, SWA, 24)[24])


def test_a_training_that_would_average_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="would average no model in 12 steps, 6 per epoch"):
        double_trainer(tmp_path, ADAMW, {"name": "swa", "every": 3})
