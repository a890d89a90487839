"""Quantization-aware training in FlatTrainer and in whole runs: that of a plain loop, cut, resumed or pruned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split, train
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
from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors
from trainflat.pruning import MagnitudePruner
from trainflat.quantization import QUANTIZERS
from trainflat.quantization.fake import FakeInt8Linear
from trainflat.training import FlatTrainer, checkpoints

Q8 = {"name": "q8bert", "decay": 0.9}
FLAT = {
    "adamw": ADAMW,
    "sam": SAM,
    "msam": {**SAM, "name": "msam"},
    "esam": {**SAM, "name": "esam", "beta": 1.0},
}


def double_trainer(
    folder: Path, given: dict[str, Any], *, rows: int = 48, quantization: Any = Q8, **options: Any
) -> FlatTrainer:
    model = tiny_bert(**NO_DROPOUT).double()
    trainer = FlatTrainer(
        model,
        arguments(folder, **options),
        train_dataset=random_split(rows),
        data_collator=collate,
        optimizer=given,
        masks=MagnitudePruner(model, sparsity=0.6).prune(),
        quantization=quantization,
    )
    trainer.train()
    return trainer


def ranges(trainer: FlatTrainer) -> dict[str, Tensor]:
    assert trainer.features["quantization"].quantizer is not None
    return trainer.features["quantization"].quantizer.state_dict()


def assert_same_ranges(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and one
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-9, atol=0)


CUTS = [("adamw", 4), ("sam", 2), ("msam", 2), ("esam", 2)]
WHOLE = [pytest.param(method, 1, marks=pytest.mark.slow) for method in ("adamw", "sam")]


@pytest.mark.parametrize(("method", "accumulate"), [*CUTS, *WHOLE])
def test_trains_as_a_plain_loop_does(tmp_path: Path, method: str, accumulate: int) -> None:
    """Masked, with a ragged last window, and cut into micro-batches: one range per step, from the first passes."""
    given, by_hand = FLAT[method], tiny_bert(**NO_DROPOUT).double()
    masks = MagnitudePruner(by_hand, sparsity=0.6).prune()
    quantizer = QUANTIZERS.make("q8bert", by_hand, decay=0.9).attach()
    train(by_hand, random_split(45), given, epochs=2, batch_size=8, seed=3, masks=masks, quantizer=quantizer)

    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = double_trainer(tmp_path, given, rows=45, **cut)
    assert_same_weights(trainer.model, by_hand)
    assert_same_ranges(ranges(trainer), quantizer.state_dict())
    masks.check(trainer.model)
    if accumulate == 1:
        plain = double_trainer(tmp_path, given, rows=45, quantization=None)
        differences = [(p - q).abs().max() for p, q in zip(plain.model.parameters(), by_hand.parameters(), strict=True)]
        assert max(differences) > 1e-4


@pytest.mark.slow
def test_two_processes_find_the_ranges_of_one(tmp_path: Path) -> None:
    options = {"quantization": Q8, "sparsity": 0.6, "sync_perturbation": True}
    ranks = on_two_processes(tmp_path / "two", SAM, per_device_train_batch_size=4, **options)
    alone = double_trainer(tmp_path / "one", SAM)
    one = dict(alone.model.named_parameters())
    for name, weights in ranks[0].items():
        assert torch.equal(weights, ranks[1][name])
        torch.testing.assert_close(weights, one[name].detach(), rtol=0, atol=1e-10)
    found = [load_file(tmp_path / "two" / f"ranges{rank}.safetensors") for rank in (0, 1)]
    assert found[0] == found[1]
    assert_same_ranges(found[0], ranges(alone))


def begun(folder: Path, quantization: Any = Q8, **options: Any) -> FlatTrainer:
    model = tiny_bert(hidden_dropout_prob=0.1)
    every = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 5,
        "save_steps": 5,
        "num_train_epochs": 4,
    }
    best = {"metric_for_best_model": "eval_validation_accuracy", "greater_is_better": True}
    return FlatTrainer(
        model,
        arguments(folder, **(every | best | {"load_best_model_at_end": True} | options)),
        train_dataset=random_split(),
        eval_dataset={"validation": random_split(20, seed=9)},
        data_collator=collate,
        optimizer={**SAM, "lr": 1e-2},
        masks=MagnitudePruner(model, sparsity=0.5).prune(),
        averaging="ema",
        quantization=quantization,
        score=accuracy,
    )


@pytest.mark.parametrize("options", [{}, {"load_best_model_at_end": False, "bf16": True}], ids=["best", "last-bf16"])
def test_resuming_continues_the_same_ranges(tmp_path: Path, options: dict[str, Any]) -> None:
    """With dropout, masks, an average and fake quantization: the same bits of weights and ranges."""
    whole = begun(tmp_path / "whole", **options)
    whole.train()
    part = begun(tmp_path / "part", **options)
    step = part.training_step

    def stopping(*args: Any) -> Tensor:
        if part.state.global_step == 13:
            raise StoppedError
        return step(*args)

    part.training_step = stopping
    with pytest.raises(StoppedError):
        part.train()
    again = begun(tmp_path / "part", **options)
    again.train(resume_from_checkpoint=str(checkpoints.newest(tmp_path / "part")))
    assert_same_weights(again.model, whole.model, atol=0)
    assert ranges(again) == ranges(whole)
    assert reproducible(again) == reproducible(whole)


def test_the_best_checkpoints_ranges_are_kept(tmp_path: Path) -> None:
    scores = {5: 1.0, 10: 99.0, 15: 2.0, 20: 3.0, 24: 4.0}
    trainer = begun(tmp_path)
    trainer.score = trainer.compute_metrics = lambda *_: {"accuracy": scores[trainer.state.global_step]}
    trainer.train()
    assert trainer.state.best_global_step == 10
    best = load_tensors(checkpoints.path(tmp_path, 10) / "quantization.safetensors")[0]
    assert ranges(trainer) == best
    last = load_tensors(checkpoints.newest(tmp_path) / "quantization.safetensors")[0]
    assert ranges(trainer) != last


def test_evaluations_see_what_is_trained(tmp_path: Path) -> None:
    trainer = begun(tmp_path, load_best_model_at_end=False)
    kinds = []
    trainer.score = trainer.compute_metrics = lambda *_: (
        kinds.append(type(trainer.model.classifier)) or {"accuracy": 1.0}
    )
    trainer.train()
    assert set(kinds) == {FakeInt8Linear}
    trainer.release()
    assert type(trainer.model.classifier) is nn.Linear


@pytest.mark.parametrize(("before", "after"), [(Q8, None), (None, Q8)], ids=["with-without", "without-with"])
def test_a_checkpoint_goes_on_as_it_began(tmp_path: Path, before: Any, after: Any) -> None:
    options = {"num_train_epochs": 1, "load_best_model_at_end": False}
    begun(tmp_path, before, **options).train()
    words = "written with quantization and cannot go on without" if before else "written without quantization"
    with pytest.raises(InputError, match=words):
        begun(tmp_path, after, **options).train(resume_from_checkpoint=str(checkpoints.newest(tmp_path)))


def test_a_second_training_begins_its_own_ranges(tmp_path: Path) -> None:
    trainer = double_trainer(tmp_path, ADAMW)
    trainer.train()
    assert sum(isinstance(m, FakeInt8Linear) for m in trainer.model.modules()) == 14
