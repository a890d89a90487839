"""Gates, quantization-aware training and a teacher together: autograd through q(W * m(S))."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny_bert
from tests.support.gated_reference import ByHand
from tests.support.gated_steps import SCORED, assert_same, batches, begun, model, shaken
from tests.support.gated_training import HARD, by_hand, recipe
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split
from tests.support.teachers import teach_by_hand, teacher_model
from tests.support.training import ADAMW, NO_DROPOUT, SAM, StoppedError, arguments, assert_same_weights
from trainflat.pruning.gates import GATES
from trainflat.quantization import QUANTIZERS, Int8Linear
from trainflat.quantization.fake import FakeInt8Linear
from trainflat.training import FlatTrainer, checkpoints

Q8 = {"name": "q8bert", "decay": 0.9}
KD = {"weight": 0.7, "temperature": 3.0}


def together(folder: Path, optimizer: Any, gate: Any, student: Any = None, **options: Any) -> FlatTrainer:
    double = student is None
    return FlatTrainer(
        tiny_bert(**NO_DROPOUT).double() if double else student,
        arguments(folder, **options),
        train_dataset=random_split(),
        eval_dataset=random_split(16, seed=5),
        data_collator=collate,
        optimizer=optimizer,
        gate=gate,
        quantization=Q8,
        distillation={"teacher": teacher_model().double() if double else teacher_model(), **KD},
    )


@pytest.mark.parametrize("name", SCORED)
def test_gradients_are_those_of_autograd_through_both(name: str) -> None:
    ours = model()
    theirs = copy.deepcopy(ours)
    gate = begun(ours, name, SCORED[name])
    shaken(gate, 30)
    hand, [batch] = ByHand(theirs, gate), batches(1)
    for one in (ours, theirs):
        quantizer = QUANTIZERS.make("q8bert", one, decay=0.9).attach()
        one(**batch)
        quantizer.update()  # so that inputs are rounded too
        teach_by_hand(one, teacher_model().double(), **KD)
    hand.loss(batch).backward()
    with gate.passes():
        zeros = [int((w == 0).sum()) for w in gate.weights.values()]
        ours(**batch).loss.backward()
    assert sum(zeros) > 0 and all(isinstance(m, FakeInt8Linear) for m in [ours.classifier, theirs.classifier])
    assert_same([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()], 1e-14)
    assert_same([s.grad for s in gate.scores.values()], [s.grad for s in hand.scores.values()], 1e-14)


@pytest.mark.parametrize("optimizer", [ADAMW, SAM], ids=["adamw", "sam"])
def test_the_trainer_takes_the_steps_of_autograd(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    """Weights, losses and ranges, which no displaced pass widens."""
    student = tiny_bert(**NO_DROPOUT).double()
    quantizer = QUANTIZERS.make("q8bert", student, decay=0.9).attach()
    teach_by_hand(student, teacher_model().double(), **KD)
    hand, losses = by_hand(optimizer["name"], model=student, quantizer=quantizer)
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trainer = together(tmp_path, optimizer, HARD | {"refresh": 1}, **cut)
    trainer.train()
    assert [e["loss"] for e in trainer.state.log_history if "loss" in e] == pytest.approx(losses, abs=1e-6)
    assert_same_weights(trainer.model, hand.model, atol=1e-8)
    found = trainer.features["quantization"].quantizer
    assert found is not None and found.state_dict().keys() == quantizer.state_dict().keys()
    for name, value in quantizer.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", quick(GATES, "magnitude", "hard-movement"))
def test_zeros_are_exact_in_int8_too_and_a_resumed_run_ends_on_the_same_bits(tmp_path: Path, name: str) -> None:
    settings: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps", "save_steps": 5}
    whole = together(tmp_path / "whole", SAM, recipe(name), tiny_bert(), **settings)
    whole.train()
    part = together(tmp_path / "part", SAM, recipe(name), tiny_bert(), **settings)
    step = part.training_step

    def stopping(*args: Any) -> torch.Tensor:
        if part.state.global_step == 7:
            raise StoppedError
        return step(*args)

    part.training_step = stopping
    with pytest.raises(StoppedError):
        part.train()
    again = together(tmp_path / "part", SAM, recipe(name), tiny_bert(), **settings)
    again.train(resume_from_checkpoint=str(checkpoints.newest(tmp_path / "part")))
    assert_same_weights(again.model, whole.model, atol=0)
    assert again.masks is not None and again.masks == whole.masks and again.masks.zeros > 0
    ends = [t.features["quantization"].quantizer for t in (whole, again)]
    assert ends[0] is not None and ends[1] is not None and ends[0].state_dict() == ends[1].state_dict()
    again.masks.check(again.model)
    small = ends[1].convert()
    for key, mask in again.masks.items():
        layer = small.get_submodule(key.removesuffix(".weight"))
        assert isinstance(layer, Int8Linear) and not layer.weight_int8[~mask].any()
