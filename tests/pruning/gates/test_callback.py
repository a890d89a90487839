"""A gate as a callback of a plain Trainer: the model that FlatTrainer makes."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import Trainer, TrainingArguments

from tests.conftest import tiny_bert
from tests.support.gated_training import RAMP
from tests.support.plain_loop import collate, random_split
from tests.support.training import NO_DROPOUT, arguments, assert_same_weights
from trainflat.core.errors import InputError
from trainflat.pruning.gates import PINS, GradualMagnitude, HardMovement
from trainflat.training import FlatTrainer, GateCallback


def test_a_callback_prunes_in_a_plain_trainer(tmp_path: Path) -> None:
    """The same model as FlatTrainer's, also when it was resumed."""

    def plain(folder: Path, resume: Any = None, **options: Any) -> tuple[nn.Module, GateCallback]:
        model = tiny_bert(**NO_DROPOUT).double()
        callback = GateCallback(GradualMagnitude(model, sparsity=0.6, every=2, schedule=RAMP))
        settings = arguments(folder, max_grad_norm=0.0, learning_rate=1e-3, save_steps=6, **options).to_dict()
        known = {f.name for f in TrainingArguments.__dataclass_fields__.values() if f.init}
        trainer = Trainer(
            model,
            TrainingArguments(**{k: v for k, v in settings.items() if k in known}),
            train_dataset=random_split(),
            eval_dataset=random_split(8),
            data_collator=collate,
            callbacks=[callback],
        )
        trainer.train(resume_from_checkpoint=resume)
        return model, callback

    model, callback = plain(tmp_path / "a", save_strategy="steps")
    assert callback.masks is not None and callback.masks.sparsity == pytest.approx(0.6, abs=1e-3)
    callback.masks.check(model)
    again, resumed = plain(tmp_path / "a", str(tmp_path / "a/checkpoint-6"))
    assert_same_weights(again, model, atol=0)
    assert resumed.masks == callback.masks
    with pytest.raises(InputError, match="load_best_model_at_end may load a model from before it was pruned"):
        plain(tmp_path / "b", load_best_model_at_end=True, save_strategy="epoch", eval_strategy="epoch")
    with pytest.raises(InputError, match=r"HardMovement learns scores.* Use FlatTrainer\(gate=\.\.\.\)"):
        GateCallback(HardMovement(model))


def test_a_callback_sees_gradients_that_are_not_clipped(tmp_path: Path) -> None:
    """A plain Trainer calls back only when it has clipped; without clipping the path is FlatTrainer's."""
    options: dict[str, Any] = {"sparsity": 0.5, "every": 2, "window": 3, "schedule": RAMP}
    whole = {"learning_rate": 1e-3, "per_device_train_batch_size": 48, "num_train_epochs": 12}  # in whatever order

    def plain(clip: float) -> GateCallback:
        callback = GateCallback(PINS(tiny_bert(**NO_DROPOUT).double(), **options))
        given = arguments(tmp_path, max_grad_norm=clip, **whole)
        model, rows = callback.gate.model, random_split()
        Trainer(model, given, train_dataset=rows, data_collator=collate, callbacks=[callback]).train()
        return callback

    with pytest.raises(InputError, match=r"PINS ranks by gradients .* clipped to max_grad_norm 0.5. Set it to 0"):
        plain(0.5)
    callback = plain(0.0)
    flat = FlatTrainer(
        tiny_bert(**NO_DROPOUT).double(),
        arguments(tmp_path, max_grad_norm=0.0, **whole),
        train_dataset=random_split(),
        data_collator=collate,
        gate={"name": "pins", **options},
    )
    flat.train()
    assert callback.masks == flat.masks
    assert_same_weights(callback.gate.model, flat.model)


def test_a_callback_is_told_of_the_trainers_model_and_checkpoints(tmp_path: Path) -> None:
    model = tiny_bert()

    def train(gate: GradualMagnitude, folder: Path, **options: Any) -> None:
        given = arguments(folder, max_steps=2, save_strategy="steps", save_steps=2, **options)
        trainer = Trainer(model, given, train_dataset=random_split(), data_collator=collate)
        trainer.add_callback(GateCallback(gate))
        trainer.train(resume_from_checkpoint=options.get("resume_from_checkpoint"))

    with pytest.raises(InputError, match="GradualMagnitude is on another model than the Trainer's"):
        train(GradualMagnitude(tiny_bert(), every=1), tmp_path / "a")
    train(GradualMagnitude(model, every=1), tmp_path / "a")
    with pytest.raises(InputError, match=r"b/checkpoint-2/gate.safetensors is missing.* Begin anew, or resume there"):
        train(GradualMagnitude(model), tmp_path / "b", resume_from_checkpoint=str(tmp_path / "a/checkpoint-2"))
