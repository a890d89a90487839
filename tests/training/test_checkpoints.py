"""Checkpoints: only those that a run wrote may go, and none is resumed from that is not whole."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import SAM, accuracy, arguments, assert_same_weights
from trainflat.core.errors import InputError, TrainflatError
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer

FOREIGN = ("checkpoint-500", "checkpoint-1", "checkpoint-best", "checkpoint-2 (copy)", "checkpoint-", "checkpoint-٣")


def trainer_of(folder: Path, **options: Any) -> FlatTrainer:
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, "logging_steps": 100}
    callbacks = options.pop("callbacks", [])
    return FlatTrainer(
        tiny_bert(hidden_dropout_prob=0.1),
        arguments(folder, **(settings | options)),
        train_dataset=random_split(),
        eval_dataset=random_split(20, seed=9),
        data_collator=collate,
        optimizer=SAM,
        score=accuracy,
        callbacks=callbacks,
    )


def steps_left(folder: Path) -> set[str]:
    return {p.name.removeprefix("checkpoint-") for p in folder.glob("checkpoint-*")}


@pytest.mark.parametrize(
    ("limit", "left"),
    [(None, {"2", "4", "6"}), (0, {"2", "4", "6"}), (5, {"2", "4", "6"}), (2, {"4", "6"}), (1, {"6"})],
)
def test_the_limit_is_obeyed_and_counts_this_run_s_own(tmp_path: Path, limit: int | None, left: set[str]) -> None:
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("another run's")
    (tmp_path / "checkpoint-7").write_text("a file")
    trainer_of(tmp_path, save_total_limit=limit).train()
    foreign = {name.removeprefix("checkpoint-") for name in FOREIGN} | {"7"}
    assert steps_left(tmp_path) == foreign | left
    assert all((tmp_path / name / "model.safetensors").read_text() == "another run's" for name in FOREIGN)


@pytest.mark.parametrize("limit", [1, 2])
def test_the_best_one_stays_whatever_the_limit(tmp_path: Path, limit: int) -> None:
    worse = iter([3.0, 2.0, 1.0])
    best = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "greater_is_better": True}
    trainer = trainer_of(tmp_path, save_total_limit=limit, metric_for_best_model="rank", **best)
    trainer.compute_metrics = lambda _: {"rank": next(worse)}
    trainer.train()
    # Like the Trainer, which at the end of a training keeps nothing but the best for a limit of 1.
    assert steps_left(tmp_path) == ({"2"} if limit == 1 else {"2", "6"})


def test_a_resumed_run_knows_what_it_wrote_before(tmp_path: Path) -> None:
    trainer_of(tmp_path, max_steps=4, save_total_limit=3).train()
    trainer_of(tmp_path, save_total_limit=2).train(resume_from_checkpoint=True)
    assert steps_left(tmp_path) == {"4", "6"}


def test_resuming_passes_over_what_is_not_whole_and_names_what_is_not_ours(tmp_path: Path) -> None:
    whole = trainer_of(tmp_path / "whole")
    whole.train()
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part/checkpoint-6")
    shutil.copytree(tmp_path / "part/checkpoint-4", tmp_path / "part/checkpoint-5")
    (tmp_path / "part/checkpoint-5/manifest.json").unlink()  # as a kill leaves it
    for name in FOREIGN:
        (tmp_path / "part" / name).mkdir()
    again = trainer_of(tmp_path / "part")
    again.train(resume_from_checkpoint=True)
    assert_same_weights(again.model, whole.model, atol=0)
    for name in ("checkpoint-5", "checkpoint-500", "checkpoint-9"):
        with pytest.raises(InputError, match=f"part/{name} is not a whole checkpoint of FlatTrainer"):
            trainer_of(tmp_path / "part").train(resume_from_checkpoint=str(tmp_path / "part" / name))
    with pytest.raises(InputError, match="empty holds no whole checkpoint of FlatTrainer"):
        trainer_of(tmp_path / "empty").train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    "file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "flat.json", "model.safetensors"]
)
def test_a_file_that_is_missing_is_not_passed_over(tmp_path: Path, file: str) -> None:
    trainer_of(tmp_path, max_steps=2).train()
    (tmp_path / "checkpoint-2" / file).unlink()
    with pytest.raises(TrainflatError, match=r"checkpoint-2") as error:
        trainer_of(tmp_path).train(resume_from_checkpoint=True)
    assert "\n" not in str(error.value)


def test_a_model_alone_is_not_resumed_from(tmp_path: Path) -> None:
    trainer_of(tmp_path, max_steps=2, save_only_model=True).train()
    with pytest.raises(InputError, match=r"checkpoint-2 cannot be resumed from: it has no optimizer\.pt"):
        trainer_of(tmp_path).train(resume_from_checkpoint=True)


def test_a_folder_of_another_run_is_not_mixed_into_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2/gate.safetensors").write_text("another run's")
    trainer_of(tmp_path, max_steps=2).train()
    trainer_of(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


@pytest.mark.parametrize(("restored", "steps"), [(True, 4), (False, 6)])
def test_a_run_that_was_stopped_goes_on_unless_its_patience_was_spent(
    tmp_path: Path, restored: bool, steps: int
) -> None:
    """With the states of callbacks restored; without them, and where something else stopped it, as the Trainer does."""
    every = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "greater_is_better": True}
    every |= {"metric_for_best_model": "rank", "restore_callback_states_from_checkpoint": restored}

    def run(**how: Any) -> FlatTrainer:
        trainer = trainer_of(tmp_path, callbacks=[EarlyStoppingCallback(1)], **every)
        trainer.compute_metrics = lambda _: {"rank": 1.0}
        trainer.train(**how)
        return trainer

    assert run().state.global_step == 4
    assert run(resume_from_checkpoint=True).state.global_step == steps


def test_masks_are_held_on_the_model_that_model_init_makes(tmp_path: Path) -> None:
    masks = MagnitudePruner(tiny_bert(seed=1), sparsity=0.5).prune()

    def new() -> torch.nn.Module:
        model = tiny_bert(seed=2)
        masks.apply_(model)
        return model

    trainer = FlatTrainer(
        model_init=new,
        args=arguments(tmp_path),
        train_dataset=random_split(),
        data_collator=collate,
        optimizer=SAM,
        masks=masks,
    )
    for _ in range(2):  # each training begins with another model
        trainer.train()
        masks.check(trainer.model)
        weights = dict(trainer.model.named_parameters())
        assert sum(int((weights[name] == 0).sum()) for name in masks) == masks.zeros
