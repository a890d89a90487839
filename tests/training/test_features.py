"""What the Trainer offers works with flat optimizers and masks: precision, stopping, the best checkpoint, resuming."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EarlyStoppingCallback

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import ADAMW, SAM, StoppedError, accuracy, arguments, assert_same_weights, reproducible
from trainflat.core.errors import DamagedFile, InputError, TrainingDiverged, ZerosRevived
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer, LengthGroupedSampler, TrainingOptions, checkpoints
from trainflat.training.sampler import ShuffledSampler


def evaluating(
    folder: Path, recipe: Any = ADAMW, *, masked: bool = False, callbacks: Any = (), **options: Any
) -> FlatTrainer:
    model = tiny_bert(hidden_dropout_prob=0.1)
    masks = MagnitudePruner(model, sparsity=0.5).prune() if masked else None
    every = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "eval_validation_accuracy"}
    return FlatTrainer(
        model,
        arguments(folder, **({**every, "load_best_model_at_end": True, "greater_is_better": True} | options)),
        train_dataset=random_split(),
        eval_dataset={"validation": random_split(20, seed=9)},
        data_collator=collate,
        optimizer=recipe,
        masks=masks,
        score=accuracy,
        callbacks=list(callbacks),
    )


@pytest.mark.parametrize("recipe", [ADAMW, SAM], ids=["adamw", "sam"])
def test_the_best_checkpoint_is_kept_and_no_pickle(tmp_path: Path, recipe: Any) -> None:
    trainer = evaluating(tmp_path, recipe, num_train_epochs=4, save_total_limit=2)
    trainer.train()
    scores = {
        e["step"]: e["eval_validation_accuracy"] for e in trainer.state.log_history if "eval_validation_accuracy" in e
    }
    best = max(scores, key=lambda step: (scores[step], -step))
    assert trainer.state.best_global_step == best
    assert trainer.evaluate()["eval_validation_accuracy"] == pytest.approx(scores[best])
    left = {p.name for p in tmp_path.glob("checkpoint-*")}
    assert left == {f"checkpoint-{best}", "checkpoint-24"}
    assert not list(tmp_path.rglob("training_args.bin"))


def test_early_stopping(tmp_path: Path) -> None:
    trainer = evaluating(tmp_path, {**SAM, "lr": 1e-12}, num_train_epochs=9, callbacks=[EarlyStoppingCallback(2)])
    trainer.train()
    assert trainer.state.global_step == 3 * 6


def test_bf16_autocast_trains_and_keeps_float32_weights(tmp_path: Path) -> None:
    trainer = evaluating(tmp_path, SAM, masked=True, bf16=True, num_train_epochs=1)
    trainer.train()
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert all(math.isfinite(e["loss"]) and e["perturbation"] > 0 for e in trainer.state.log_history if "loss" in e)


def test_a_loss_scaler_changes_no_step_and_an_overflow_skips_one(tmp_path: Path) -> None:
    """A scaler on the CPU stands in for fp16's: pass 1 is never unscaled, an overflow perturbs and steps nothing."""

    def scaled(scale: float | None, recipe: Any, overflows: int = 0) -> FlatTrainer:
        model = tiny_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).double()
        split, options = random_split(), {"per_device_train_batch_size": 4}
        trainer = FlatTrainer(
            model,
            # no clipping: accelerate unscales for it only where it knows of fp16, which a CPU has not
            arguments(tmp_path, gradient_accumulation_steps=2, max_grad_norm=0.0, **options),
            train_dataset=split,
            data_collator=collate,
            optimizer=recipe,
        )
        if scale is not None:
            trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        compute = trainer.compute_loss
        calls = 0

        def overflowing(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return compute(*args, **kwargs) * (float("inf") if calls <= overflows else 1)

        trainer.compute_loss = overflowing
        trainer.train()
        return trainer

    plain, scaled_up = scaled(None, SAM), scaled(2.0**16, SAM)
    assert_same_weights(plain.model, scaled_up.model, atol=1e-12)
    norms = [e["perturbation"] for e in scaled_up.state.log_history if "perturbation" in e]
    assert norms == pytest.approx([0.05] * 12)

    overflowed = scaled(2.0**16, SAM, overflows=4)  # both micro-batches of step 1, in both passes
    norms = [e["perturbation"] for e in overflowed.state.log_history if "perturbation" in e]
    assert norms == pytest.approx([0.0] + [0.05] * 11)
    assert overflowed.accelerator.scaler.get_scale() == 2.0**15
    assert all(torch.isfinite(p).all() for p in overflowed.model.parameters())
    with pytest.raises(TrainingDiverged):
        scaled(2.0**16, SAM, overflows=10**6)


def test_a_hugging_face_style_set_is_grouped_by_its_tokens(tmp_path: Path) -> None:
    split = random_split()
    trainer = FlatTrainer(
        tiny_bert(), arguments(tmp_path), train_dataset=[split[i] for i in range(len(split))], data_collator=collate
    )
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, LengthGroupedSampler)
    assert sampler.lengths.tolist() == list(split.lengths)


def test_activation_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain = evaluating(tmp_path / "a", SAM, num_train_epochs=1)
    plain.train()
    saving = evaluating(tmp_path / "b", SAM, num_train_epochs=1, activation_checkpointing=True)
    saving.train()
    assert_same_weights(plain.model, saving.model, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "every"),
    [
        (SAM, 5),
        (ADAMW, "epoch"),
        pytest.param(SAM, "epoch", marks=pytest.mark.slow),
        pytest.param(ADAMW, 5, marks=pytest.mark.slow),
    ],
)
def test_resuming_continues_the_same_path(tmp_path: Path, recipe: Any, every: Any) -> None:
    """Dropout on, accumulation, masks, length groups: from each checkpoint on, the same bits and the same log."""
    cut = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
        "logging_steps": 4,
    }
    if every != "epoch":
        cut |= {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": every, "save_steps": every}
    whole = evaluating(tmp_path / "whole", recipe, masked=True, load_best_model_at_end=False, **cut)
    whole.train()

    def interrupted(until: int) -> FlatTrainer:
        trainer = evaluating(tmp_path / str(until), recipe, masked=True, load_best_model_at_end=False, **cut)
        step = trainer.training_step
        seen = 0

        def stopping(*args: Any) -> torch.Tensor:
            nonlocal seen
            seen += 1
            if seen > until:
                raise StoppedError
            return step(*args)

        trainer.training_step = stopping
        with pytest.raises(StoppedError):
            trainer.train()
        return trainer

    for micro_batches in (11, 24, 33):
        interrupted(micro_batches)
        again = evaluating(tmp_path / str(micro_batches), recipe, masked=True, load_best_model_at_end=False, **cut)
        checkpoint = checkpoints.newest(tmp_path / str(micro_batches))
        again.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        assert_same_weights(whole.model, again.model, atol=0)
        assert reproducible(again) == reproducible(whole)
        assert again.passes.count == whole.passes.count


def test_a_damaged_checkpoint_is_never_loaded(tmp_path: Path) -> None:
    evaluating(tmp_path).train()
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"model\.safetensors differs"):
        checkpoints.newest(tmp_path)
    (newest / "manifest.json").unlink()  # as a kill before the manifest leaves it
    remaining = checkpoints.newest(tmp_path)
    assert remaining is None or remaining != newest
    assert not newest.exists()


def test_a_revived_zero_stops_evaluation_and_saving(tmp_path: Path) -> None:
    trainer = evaluating(tmp_path, masked=True)
    name, mask = next(iter(trainer.masks.items()))
    with torch.no_grad():
        dict(trainer.model.named_parameters())[name].masked_fill_(~mask, 1e-8)
    with pytest.raises(ZerosRevived, match=name.replace(".", r"\.")):
        trainer.evaluate()
    with pytest.raises(ZerosRevived):
        trainer._save_checkpoint(trainer.model, None)


@pytest.mark.parametrize("size", [48, 49])
def test_a_loss_that_is_no_number_names_step_and_rows(tmp_path: Path, size: int) -> None:
    """Also where the rows of an incomplete micro-batch are dropped, with which a step more would be counted."""
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 4}
    trainer = evaluating(tmp_path, ADAMW, **cut)
    trainer.args.dataloader_drop_last = True
    trainer.train_dataset = random_split(size)
    compute = trainer.compute_loss
    calls = 0

    def poisoned(model: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += model.training  # evaluation computes losses too
        loss = compute(model, *args, **kwargs)
        return loss * float("nan") if calls == 16 else loss  # second micro-batch of step 8, the second step of epoch 2

    trainer.compute_loss = poisoned
    with pytest.raises(TrainingDiverged) as error:
        trainer.train()
    rows = LengthGroupedSampler(random_split(size).lengths, 8, 3).order(1)[12:16]
    assert "at step 8, batch 2 of epoch 2" in str(error.value)
    assert f"(training rows {', '.join(map(str, rows))})" in str(error.value)


def test_sharding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Trainer

    original = Trainer.__init__

    def sharded(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "__init__", sharded)
    with pytest.raises(InputError, match="FSDP and DeepSpeed are not supported"):
        FlatTrainer(tiny_bert(), arguments(tmp_path), train_dataset=random_split(), data_collator=collate)


def test_regression_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A float label, one output, and a log that other tools read."""
    model = tiny_bert(num_labels=1, problem_type="regression")
    trainer = FlatTrainer(
        model,
        arguments(tmp_path, num_train_epochs=6),
        train_dataset=random_split(kind="regression"),
        data_collator=collate,
        optimizer={**SAM, "lr": 1e-2},
    )
    trainer.train()
    json.dumps(trainer.state.log_history)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=400)


@given(lengths, st.integers(1, 40), st.integers(0, 2**31 - 1), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_every_row_once_and_is_the_same_again(
    values: list[int], batch: int, seed: int, epoch: int
) -> None:
    for kind in (LengthGroupedSampler, ShuffledSampler):
        order = kind(values, batch, seed).order(epoch)
        assert sorted(order) == list(range(len(values)))
        assert order == kind(values, batch, seed).order(epoch)


def test_batches_hold_one_length_and_epochs_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(3, 60, (3200,), generator=generator)
    sampler = LengthGroupedSampler(values.tolist(), 32)
    order = torch.tensor(sampler.order(0)).view(-1, 32)
    padded = int(values[order].amax(1).sum()) * 32
    assert padded < 1.05 * int(values.sum())
    assert sampler.order(1) != sampler.order(0)
    means = values[order].double().mean(1)
    half = len(means) // 2
    assert abs(float(means[:half].mean() - means[half:].mean())) < 6  # long and short batches are mixed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": {"name": "sam", "rho": -1}}, "rho"),
        ({"optimizer": {"name": None}}, "name an optimizer"),
        ({"optimizer": {"name": "smam"}}, "Did you mean 'sam'"),
        ({"optimizer": {"name": "adamw", "lt": 1}}, "Did you mean 'lr'"),
        ({"batch_size": 30, "accumulate": 4}, "cannot be cut"),
        ({"perturb_over": "micro-batch", "sync_perturbation": True}, "perturb_over: window"),
        ({"epochs": 0}, "greater than 0"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)


def test_steps_are_counted_as_the_trainer_counts_them() -> None:
    options = TrainingOptions(epochs=2.5, batch_size=8, optimizer={"name": "sam", "lr": 1e-3})
    assert (options.steps_per_epoch(45), options.steps(45), options.passes_per_step) == (6, 15, 2)
