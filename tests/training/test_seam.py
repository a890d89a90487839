"""A feature that only this test names works at every hook, under whatever else a training may do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.toy_feature import LR, READY, toy_trainer
from tests.support.training import ADAMW, SAM, StoppedError, assert_same_weights, reproducible
from tests.support.two_processes import pair
from trainflat.core.errors import InputError
from trainflat.training import checkpoints
from trainflat.training.features import base

SGD = {"name": "sam", "base": "sgd", "rho": 0.05, "lr": 0.01}
CUT = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
SAVED = {"save_strategy": "steps", "save_steps": 3}


def multiplier(trainer: Any) -> float:
    return trainer.features["toy"].multiplier.item()


@pytest.mark.parametrize("recipe", [ADAMW, SAM], ids=["adamw", "sam"])
def test_accumulation_takes_the_same_steps(tmp_path: Path, recipe: Any) -> None:
    whole, cut = toy_trainer(tmp_path / "a", recipe), toy_trainer(tmp_path / "b", recipe, **CUT)
    for trainer in (whole, cut):
        before = trainer.model.classifier.bias.detach().clone()
        trainer.train()
        assert (trainer.model.classifier.bias - before).abs().max() < 0.1  # the shift is not left there
    assert_same_weights(whole.model, cut.model)
    assert multiplier(cut) == pytest.approx(multiplier(whole), abs=1e-10)
    assert set(whole.features["toy"].seen) == ({False, True} if recipe is SAM else {False})
    logs = [[e for e in t.state.log_history if "loss" in e] for t in (whole, cut)]
    assert [e["loss_toy"] for e in logs[0]] == pytest.approx([e["loss_toy"] for e in logs[1]], abs=1e-10)
    assert all(0 < e["loss_toy"] < e["loss"] and e["multiplier"] > 1 for e in logs[0])
    assert whole.features.merged(lambda f: f.record()) == {"toy": {"multiplier": multiplier(whole)}}


@pytest.mark.parametrize("clip", [False, True])
def test_it_climbs_at_its_own_rate_and_is_clipped_as_it_says(tmp_path: Path, clip: bool) -> None:
    settings = {"max_grad_norm": 1e-3, "lr_scheduler_type": "constant", "max_steps": 3}
    trainer = toy_trainer(tmp_path, SGD, settings={"clip": clip}, **settings)
    trainer.train()
    toy = trainer.features["toy"]
    (first, gradient), (second, _), _ = toy.moves
    assert gradient > 0.01
    whole = second - first == pytest.approx(LR * gradient, rel=1e-9)
    assert whole is not clip and second > first


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    for recipe, options in ((ADAMW, {}), (SAM, {"sync_perturbation": True})):
        out = tmp_path / recipe["name"]
        one = toy_trainer(out / "one", recipe)
        one.train()
        given = {"out": str(out), "recipe": recipe, "options": {"per_device_train_batch_size": 4, **options}}
        pair().run("tests.support.toy_feature", given)
        ranks = [load_file(out / f"{rank}.safetensors") for rank in (0, 1)]
        expected = {**dict(one.model.named_parameters()), "multiplier": one.features["toy"].multiplier}
        for name, tensor in expected.items():
            assert torch.equal(ranks[0][name], ranks[1][name]), name
            torch.testing.assert_close(ranks[0][name], tensor.detach(), rtol=0, atol=1e-10)


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a window, and between a checkpoint's weights and the features' states."""
    whole = toy_trainer(tmp_path / "whole", SAM, **CUT, **SAVED)
    whole.train()
    for place in ("terms", "save"):
        folder, stopped = tmp_path / place, toy_trainer(tmp_path / place, SAM, **CUT, **SAVED)
        toy, calls = stopped.features["toy"], []
        original = toy.terms if place == "terms" else base.save_tensors

        def stopping(*args: Any, original: Any = original, calls: Any = calls, place: str = place) -> Any:
            calls.append(1)
            if len(calls) == (18 if place == "terms" else 2):
                raise StoppedError
            return original(*args)

        with monkeypatch.context() as patch, pytest.raises(StoppedError):
            patch.setattr(*((toy, "terms") if place == "terms" else (base, "save_tensors")), stopping)
            stopped.train()
        assert toy.bias.abs().max() < 0.1  # taken off, though the window was not complete
        again = toy_trainer(folder, SAM, **CUT, **SAVED)
        again.train(resume_from_checkpoint=str(checkpoints.newest(folder)))
        assert_same_weights(whole.model, again.model, atol=0)
        assert multiplier(again) == multiplier(whole) and reproducible(again) == reproducible(whole)


def test_no_evaluation_is_the_best_before_it_is_ready(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_told", "greater_is_better": True}
    scores = iter([9.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    told = {"score": lambda *_: {"told": next(scores)}}
    trainer = toy_trainer(tmp_path, ADAMW, parts=told, **SAVED, **best, eval_strategy="steps", eval_steps=3)
    trainer.train()
    assert trainer.state.best_global_step == READY
    assert trainer.features["toy"].steps == READY  # as beside the best checkpoint


def test_a_checkpoint_of_the_toy_does_not_go_on_without_it(tmp_path: Path) -> None:
    toy_trainer(tmp_path, ADAMW, **SAVED).train()
    with pytest.raises(InputError, match="was written with a toy and cannot go on without"):
        toy_trainer(tmp_path, ADAMW, settings=False, **SAVED).train(resume_from_checkpoint=True)
