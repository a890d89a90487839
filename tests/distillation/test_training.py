"""A teacher in FlatTrainer: the steps of a loop by hand, whatever the batch is cut into and however many passes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split, train
from tests.support.teachers import Counting, spans, teach_by_hand, teacher_model
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
from trainflat.anatomy.heads import row_losses as example_losses
from trainflat.core.errors import InputError
from trainflat.distillation import Distillation
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer, checkpoints

KD = {"weight": 0.7, "temperature": 3.0}


def no_answers_of_the_teacher(model: Any, args: Any, batch: dict[str, Any]) -> None:
    """The students of these tests would take any key without a word."""
    assert set(batch) <= {"input_ids", "attention_mask", "labels"}


def taught(
    folder: Path, recipe: Any, distillation: Any, *, rows: int = 48, masks: float | None = None, **options: Any
) -> FlatTrainer:
    model = tiny_bert(**NO_DROPOUT).double()
    model.register_forward_pre_hook(no_answers_of_the_teacher, with_kwargs=True)
    trainer = FlatTrainer(
        model,
        arguments(folder, **options),
        train_dataset=random_split(rows),
        data_collator=collate,
        optimizer=recipe,
        masks=None if masks is None else MagnitudePruner(model, sparsity=masks).prune(),
        distillation=distillation,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("recipe", [ADAMW, SAM, {**SAM, "name": "esam", "beta": 1.0}], ids=["adamw", "sam", "esam"])
@pytest.mark.parametrize(
    ("accumulate", "sparsity"),
    [(2, 0.6), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, None), (2, None), (1, 0.6)))],
)
def test_takes_the_steps_of_a_plain_loop(
    tmp_path: Path, accumulate: int, recipe: dict[str, Any], sparsity: float | None
) -> None:
    """Also where the last window and its last part are smaller, and where the second pass takes only some rows."""
    teacher, by_hand = teacher_model().double(), tiny_bert(**NO_DROPOUT).double()
    masks = None if sparsity is None else MagnitudePruner(by_hand, sparsity=sparsity).prune()
    teach_by_hand(by_hand, teacher, **KD)
    losses = train(by_hand, random_split(45), recipe, epochs=2, batch_size=8, seed=3, masks=masks)

    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = taught(tmp_path, recipe, {"teacher": teacher, **KD}, rows=45, masks=sparsity, **cut)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=1e-6)
    assert_same_weights(trainer.model, by_hand)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "sync_perturbation": True}
    ranks = on_two_processes(tmp_path / "two", SAM, distillation=KD, **options)
    one = taught(tmp_path / "one", SAM, {"teacher": teacher_model().double(), **KD})
    for name, weights in ranks[0].items():
        assert torch.equal(weights, ranks[1][name])
        torch.testing.assert_close(weights, dict(one.model.named_parameters())[name].detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["adamw", "sam", "esam", "msam"])
def test_the_teacher_is_asked_once_per_micro_batch_and_is_left_alone(tmp_path: Path, name: str) -> None:
    teacher = Counting(teacher_model().double().train())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    taught(tmp_path, {"name": name, "lr": 1e-3}, {"teacher": teacher, **KD}, **cut)
    assert (teacher.asked, teacher.rows) == (2 * 12, 2 * 48)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_micro_batches_that_are_displaced_one_by_one_share_their_answers(tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "perturb_over": "micro-batch"}
    teacher = Counting(teacher_model().double())
    taught(tmp_path, SAM, teacher, **cut)
    assert teacher.asked == 2 * 12


def test_no_weight_is_no_teacher_bit_for_bit_and_all_of_it_no_labels(tmp_path: Path) -> None:
    teacher = teacher_model().double()
    without = taught(tmp_path, SAM, None)
    assert_same_weights(taught(tmp_path, SAM, {"teacher": teacher, "weight": 0}).model, without.model, atol=0)

    def of_labels(flip: int) -> FlatTrainer:
        split = random_split()
        for row in split.rows:
            row["labels"] ^= flip
        model = tiny_bert(**NO_DROPOUT).double()
        section = {"teacher": teacher, "weight": 1}
        given = {"train_dataset": split, "data_collator": collate, "optimizer": SAM, "distillation": section}
        trainer = FlatTrainer(model, arguments(tmp_path), **given)
        trainer.train()
        return trainer

    assert_same_weights(of_labels(0).model, of_labels(1).model, atol=0)


def student(folder: Path, *, distillation: Any = "given", **options: Any) -> FlatTrainer:
    """With dropout, masks, evaluations and checkpoints."""
    model = tiny_bert(hidden_dropout_prob=0.1)
    every = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 3}
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    return FlatTrainer(
        model,
        arguments(folder, **(every | cut | options)),
        train_dataset=random_split(),
        eval_dataset={"validation": random_split(20, seed=9)},
        data_collator=collate,
        optimizer=SAM,
        masks=MagnitudePruner(model, sparsity=0.5).prune(),
        distillation={"teacher": teacher_model(), **KD} if distillation == "given" else distillation,
        score=accuracy,
    )


def test_resuming_continues_the_same_path(tmp_path: Path) -> None:
    whole = student(tmp_path / "whole", logging_steps=4)
    whole.train()
    stopped = student(tmp_path / "part", logging_steps=4)
    step = stopped.training_step

    def stopping(*args: Any) -> Tensor:
        if stopped.state.global_step == 8:
            raise StoppedError
        return step(*args)

    stopped.training_step = stopping
    with pytest.raises(StoppedError):
        stopped.train()
    again = student(tmp_path / "part", logging_steps=4)
    again.train(resume_from_checkpoint=str(checkpoints.newest(tmp_path / "part")))
    assert_same_weights(whole.model, again.model, atol=0)
    assert reproducible(again) == reproducible(whole)


def test_autocast_covers_the_teacher(tmp_path: Path) -> None:
    seen = []
    teacher = teacher_model()
    teacher.classifier.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    trainer = student(tmp_path, distillation=teacher, bf16=True, num_train_epochs=1)
    trainer.train()
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_evaluations_know_no_teacher(tmp_path: Path) -> None:
    trainer, alone = student(tmp_path), student(tmp_path, distillation=None)
    alone.model.load_state_dict(trainer.model.state_dict())
    loss = "eval_validation_loss"
    assert trainer.evaluate()[loss] == alone.evaluate()[loss]


def numbers() -> tuple[Any, dict[str, Tensor]]:
    rows = collate([random_split(4, kind="regression")[i] for i in range(4)])
    return tiny_bert(num_labels=1).double().eval(), {**rows, "labels": rows["labels"].double()}


@pytest.mark.parametrize("kind", [spans, numbers])
def test_spans_and_numbers(tmp_path: Path, kind: Any) -> None:
    """The loss of a batch, and of its rows, beside both parts taken by hand."""
    torch.manual_seed(5)
    (model, batch), (teacher, _) = kind(), kind()
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    trainer = FlatTrainer(model, arguments(tmp_path), distillation={"teacher": teacher, **KD})
    feature = trainer.features["distillation"]
    asked = feature.batch(dict(batch))
    loss, outputs = trainer.compute_loss(model, dict(asked), return_outputs=True)
    loss = feature.terms({"task": loss}, outputs, asked, 1.0)["task"]
    question = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    ours, its = (tuple(m(**question).to_tuple()) for m in (model, teacher))
    apart = Distillation(**KD).losses(ours, its, batch["attention_mask"])
    plain = model(**batch)
    torch.testing.assert_close(loss, 0.7 * apart.mean() + 0.3 * plain.loss)
    rows = feature.row_losses(example_losses(outputs, asked), outputs, asked).detach()
    torch.testing.assert_close(rows, (0.7 * apart + 0.3 * example_losses(plain, batch)).detach())
    assert apart.mean() > 0.01


def test_teachers_that_do_not_fit(tmp_path: Path) -> None:
    three = tiny_bert(num_labels=3)
    named = tiny_bert(id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    other = tiny_bert(id2label={0: "yes", 1: "no"}, label2id={"no": 1, "yes": 0})
    several = tiny_bert(problem_type="multi_label_classification")
    same = tiny_bert()
    refused: list[tuple[Any, Any, str]] = [
        (
            same,
            three,
            "teacher: model .BertForSequenceClassification. was fine-tuned for the classes LABEL_0, LABE",
        ),
        (named, other, "has the student's classes in another order: yes, no. Give the name"),
        (same, same, "the teacher is the student itself"),
        (several, same, "one class or one number per row, and spans; .* has labels"),
        (same, str(tmp_path), "no config.json"),
        (same, "/nowhere", "there is no model folder /nowhere"),
        (same, {"teacher": same, "weight": 2}, r"in \[0, 1\], got 2"),
        (same, {"teachr": same}, "Did you mean 'teacher'"),
    ]
    for model, section, message in refused:
        with pytest.raises(InputError, match=message):
            FlatTrainer(model, arguments(tmp_path), train_dataset=random_split(), distillation=section)


def test_a_teacher_with_other_logits_is_refused_at_the_first_step(tmp_path: Path) -> None:
    teacher = Counting(tiny_bert(num_labels=3).double())  # no config tells it
    with pytest.raises(
        InputError, match=r"teacher's logits have the shapes \(\(8, 3\),\), the student's \(\(8, 2\),\)"
    ):
        taught(tmp_path, ADAMW, teacher)
