"""The best student so far as the teacher: the steps of a loop by hand, with every gate, resumed, on two processes."""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerCallback

from tests.conftest import tiny_bert
from tests.support.gated_training import recipe
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split, train
from tests.support.teachers import Counting, spans, teacher_model
from tests.support.training import ADAMW, NO_DROPOUT, SAM, arguments, assert_same_weights, reproducible
from tests.support.two_processes import on_two_processes
from trainflat.anatomy.heads import row_losses as example_losses
from trainflat.core.errors import InputError
from trainflat.distillation import Distillation
from trainflat.pruning import MagnitudePruner
from trainflat.pruning.gates import GATES
from trainflat.training import FlatTrainer

PINS = {"weight": "entropy", "temperature": 3.0, "renew": "best"}
# What evaluations say after every second of the 12 steps: no number, the first, a worse one, one as good, the last one.
TOLD = {2: math.nan, 4: 1.0, 6: 0.5, 8: 1.0, 10: 0.2, 12: 9.0}
RENEWED = [4, 8]
SAVED = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}


def told(folder: Path, **options: Any) -> Any:
    """Arguments under which every second step is evaluated, and what is best is told."""
    every = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "told", "greater_is_better": True}
    return arguments(folder, **(every | options))


def student(
    folder: Path,
    optimizer: Any = ADAMW,
    *,
    scores: Mapping[int, float] = TOLD,
    model: Any = None,
    teacher: Any = None,
    section: Any = PINS,
    kind: type[FlatTrainer] = FlatTrainer,
    masks: float | None = None,
    parts: Mapping[str, Any] | None = None,
    rows: int = 48,
    **options: Any,
) -> FlatTrainer:
    model = tiny_bert(**NO_DROPOUT).double() if model is None else model
    trainer = kind(
        model,
        told(folder, **options),
        train_dataset=random_split(rows),
        eval_dataset=random_split(16, seed=5),
        data_collator=collate,
        optimizer=optimizer,
        masks=None if masks is None else MagnitudePruner(model, sparsity=masks).prune(),
        distillation={"teacher": teacher_model().double() if teacher is None else teacher, **section},
        score=lambda split, predictions: {"told": scores[trainer.state.global_step]},
        **(parts or {}),
    )
    return trainer


def teach_itself(model: nn.Module, teacher: nn.Module, temperature: float, passes: int, renewed: list[int]) -> None:
    """The student's loss is the blend, written down once more, and from some steps on it is its own teacher.

    ``passes`` of the student make a step.
    """
    forward, own, calls = model.forward, copy.deepcopy(model).eval(), 0
    teachers = [teacher.eval()]

    def taught(**batch: Tensor) -> Any:
        nonlocal calls
        if calls % passes == 0 and calls // passes in renewed:
            own.load_state_dict(model.state_dict())
            teachers.append(own)
        calls += 1
        outputs, c = forward(**batch), 2
        with torch.no_grad():
            says = teachers[-1](**{key: value for key, value in batch.items() if key != "labels"}).logits
            p = torch.softmax(outputs.logits, -1)
            share = 1 + (p * p.log()).sum(-1) / math.log(c)
        soft = [torch.softmax(logits / temperature, -1) for logits in (says, outputs.logits)]
        kl = (soft[0] * (soft[0] / soft[1]).log()).sum(-1) * temperature**2
        ce = -outputs.logits.log_softmax(-1).gather(1, batch["labels"][:, None])[:, 0]
        rows = share * kl + (1 - share) * ce
        return SimpleNamespace(loss=rows.mean(), logits=outputs.logits, row_losses=rows)

    model.forward = taught  # type: ignore[method-assign, assignment]


ESAM = {**SAM, "name": "esam", "beta": 1.0}
CASES = [
    (ADAMW, 1, 1, None),
    (SAM, 2, 1, 0.6),
    (ESAM, 3, 2, None),
    pytest.param(SAM, 2, 2, None, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("optimizer", "passes", "accumulate", "sparsity"), CASES)
def test_takes_the_steps_of_a_plain_loop(
    tmp_path: Path, optimizer: dict[str, Any], passes: int, accumulate: int, sparsity: float | None
) -> None:
    """Also where the last window and its last part are smaller."""
    by_hand = tiny_bert(**NO_DROPOUT).double()
    masks = None if sparsity is None else MagnitudePruner(by_hand, sparsity=sparsity).prune()
    teach_itself(by_hand, teacher_model().double(), 3.0, passes, RENEWED)
    losses = train(by_hand, random_split(45), optimizer, epochs=2, batch_size=8, seed=3, masks=masks)

    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = student(tmp_path, optimizer, masks=sparsity, rows=45, **cut)
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=1e-6)
    assert_same_weights(trainer.model, by_hand)
    assert trainer.features["self_teaching"].steps == RENEWED


class Watching(FlatTrainer):
    """Remembers what every evaluation saw, and who was the teacher after it."""

    seen: dict[int, dict[str, Tensor]]

    def prediction_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        now = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.seen = {**getattr(self, "seen", {}), self.state.global_step: now}
        return super().prediction_step(model, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        teacher, step = self.features["self_teaching"].model, self.state.global_step
        due = [known for known in RENEWED if known <= step]
        assert (teacher is not None) == bool(due)
        if teacher is not None:
            for name, p in teacher.named_parameters():
                assert torch.equal(p, self.seen[due[-1]][name]), (step, name)
        return super().training_step(*args, **kwargs)


@pytest.mark.parametrize("name", quick(GATES, "magnitude", "pins", "hard-movement"))
def test_the_teacher_is_the_model_as_it_was_evaluated_with_every_gate(tmp_path: Path, name: str) -> None:
    trainer = student(tmp_path, kind=Watching, parts={"gate": recipe(name)})
    trainer.train()
    assert trainer.features["self_teaching"].steps == RENEWED
    teacher, weights = trainer.features["self_teaching"].model, trainer.features["gate"].gate.weights
    zeros = sum(int((p == 0).sum()) for n, p in teacher.named_parameters() if n in weights)
    logged = {e["step"]: e["sparsity"] for e in trainer.state.log_history if "eval_told" in e}
    assert zeros / sum(w.numel() for w in weights.values()) == pytest.approx(logged[8], abs=2e-3)
    assert trainer.state.best_global_step not in RENEWED[:1]  # it was denser than in the end


@pytest.mark.parametrize(
    "parts",
    [{"averaging": {"name": "swa", "start": 0.2, "every": 0.2}}, {"reparametrization": "powerprop"}],
    ids=["averaged", "reparametrised"],
)
def test_the_teacher_is_what_evaluations_see(tmp_path: Path, parts: dict[str, Any]) -> None:
    trainer = student(tmp_path, kind=Watching, parts=parts)
    trainer.train()  # the student watches its teacher at every step
    assert trainer.features["self_teaching"].steps == RENEWED


def test_the_teacher_of_a_model_trained_for_int8_computes_in_float(tmp_path: Path) -> None:
    trainer = student(tmp_path, kind=Watching, parts={"quantization": "q8bert"})
    trainer.train()
    trainer.release()
    assert {type(m) for m in trainer.features["self_teaching"].model.modules()} == {
        type(m) for m in trainer.model.modules()
    }


class Stop(TrainerCallback):
    """Ends a training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize(
    ("step", "gate"),
    [(2, None), (4, "pins"), pytest.param(10, None, marks=pytest.mark.slow), (10, "hard-movement")],
)
def test_resuming_continues_the_same_path(tmp_path: Path, step: int, gate: str | None) -> None:
    """Before the first renewal, right behind it, and two evaluations later, when its checkpoint may be gone."""
    parts = {} if gate is None else {"gate": recipe(gate)}

    def begun(folder: str, **more: Any) -> FlatTrainer:
        made = {"model": tiny_bert(), "teacher": teacher_model(), "parts": parts | more}
        return student(tmp_path / folder, SAM, **made, **SAVED)

    whole = begun("whole")
    whole.train()
    begun("part", callbacks=[Stop(step)]).train()
    if gate == "hard-movement":
        assert not (tmp_path / "part/checkpoint-4").exists()
    again = begun("part")
    again.train(resume_from_checkpoint=str(tmp_path / f"part/checkpoint-{step}"))
    assert_same_weights(whole.model, again.model, atol=0)
    logs = [json.dumps(reproducible(trainer), sort_keys=True) for trainer in (again, whole)]
    assert logs[0] == logs[1]
    assert again.features["self_teaching"].steps == whole.features["self_teaching"].steps == RENEWED
    assert_same_weights(whole.features["self_teaching"].model, again.features["self_teaching"].model, atol=0)


def test_a_renewal_that_never_comes_changes_no_bit(tmp_path: Path) -> None:
    never = dict.fromkeys(TOLD, math.nan)
    waiting = student(tmp_path / "a", SAM, model=tiny_bert(), teacher=teacher_model(), scores=never)
    waiting.train()
    without = {key: value for key, value in PINS.items() if key != "renew"}
    plain = student(tmp_path / "b", SAM, model=tiny_bert(), teacher=teacher_model(), section=without)
    plain.train()
    assert_same_weights(waiting.model, plain.model, atol=0)
    assert waiting.features["self_teaching"].steps == [] and "self_teaching" not in plain.features


def test_every_training_begins_with_the_first_teacher_which_is_left_alone(tmp_path: Path) -> None:
    """Of another architecture too; it is asked until somebody takes its place."""
    teacher = Counting(tiny_bert(num_hidden_layers=3, hidden_size=8).double())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    model = tiny_bert(**NO_DROPOUT).double()
    start = copy.deepcopy(model.state_dict())
    trainer = student(tmp_path, SAM, model=model, teacher=teacher)
    ends = []
    for times in (1, 2):
        model.load_state_dict(start)
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.train()
        ends.append(copy.deepcopy(model))
        assert (teacher.asked, trainer.features["self_teaching"].steps) == (4 * times, RENEWED)
    assert_same_weights(*ends, atol=0)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    renewed = trainer.features["self_teaching"].model
    assert not any(p.requires_grad or p.grad is not None for p in renewed.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_a_lower_score_is_better_where_it_is_said_so(tmp_path: Path) -> None:
    trainer = student(tmp_path, greater_is_better=False)
    trainer.train()
    assert trainer.features["self_teaching"].steps == [4, 6, 10]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_have_one_teacher(tmp_path: Path) -> None:
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "sync_perturbation": True}
    gate = recipe("hard-movement") | {"refresh": 1}
    every = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}
    ranks = on_two_processes(tmp_path / "two", SAM, distillation=PINS, gate=gate, **options, **every)
    teachers = [load_file(tmp_path / f"two/teacher{rank}.safetensors") for rank in (0, 1)]
    one = student(tmp_path / "one", SAM, parts={"gate": gate}, metric_for_best_model="loss", greater_is_better=False)
    one.score = one.compute_metrics = None
    one.train()
    assert one.features["self_teaching"].steps
    for mine, others in ((one.model, ranks), (one.features["self_teaching"].model, teachers)):
        for name, p in mine.named_parameters():
            assert torch.equal(others[0][name], others[1][name]), name
            torch.testing.assert_close(others[0][name], p.detach(), rtol=0, atol=1e-8)


def test_spans_weigh_rows_by_both_ends(tmp_path: Path) -> None:
    (model, batch), (teacher, _) = spans(), spans()
    torch.manual_seed(5)
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    how = {key: value for key, value in PINS.items() if key != "renew"}
    trainer = FlatTrainer(model, arguments(tmp_path), distillation={"teacher": teacher, **how})
    feature = trainer.features["distillation"]
    asked = feature.batch(dict(batch))
    loss, outputs = trainer.compute_loss(model, dict(asked), return_outputs=True)
    loss = feature.terms({"task": loss}, outputs, asked, 1.0)["task"]
    question = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    ours, its = (tuple(m(**question).to_tuple()) for m in (model, teacher))
    shares = []
    for row, length in enumerate(batch["attention_mask"].sum(-1).tolist()):
        ends = [torch.softmax(end[row, :length], -1) for end in ours]
        shares.append(1 + sum((p * p.log()).sum() for p in ends) / math.log(length) / 2)
    share = torch.stack(shares).detach()
    apart = Distillation(temperature=3.0).losses(ours, its, batch["attention_mask"])
    rows = share * apart + (1 - share) * example_losses(model(**batch), batch)
    torch.testing.assert_close(loss, rows.mean())
    found = feature.row_losses(example_losses(outputs, asked), outputs, asked)
    torch.testing.assert_close(found.detach(), rows.detach())
    assert loss.requires_grad and apart.mean() > 0.01


def test_autocast(tmp_path: Path) -> None:
    trainer = student(tmp_path, SAM, model=tiny_bert(), teacher=teacher_model(), bf16=True, parts={"gate": "magnitude"})
    trainer.train()
    assert {p.dtype for p in trainer.features["self_teaching"].model.parameters()} == {torch.float32}
    assert all(math.isfinite(e["loss"]) for e in trainer.state.log_history if "loss" in e)


def test_refusals(tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"eval_steps": 12}, "before the last of 12 steps, and the first is after 12. Evaluate more often"),
        ({"eval_strategy": "epoch", "num_train_epochs": 1, "save_strategy": "no"}, "last of 6 steps, and the first is"),
        ({"eval_strategy": "no"}, "before the last of 12 steps, and there is none"),
        ({"metric_for_best_model": None}, "renew best needs metric_for_best_model, which says what is best"),
        ({"metric_for_best_model": "f1"}, "renew best chooses by eval_f1, and the evaluation gives .*eval_told"),
        ({"label_smoothing_factor": 0.1}, "weight entropy is by row, and label smoothing or a loss function"),
        ({"parts": {"compute_loss_func": lambda *a, **k: 0}}, "weight entropy is by row, and label smoothing or a"),
        ({"model": tiny_bert(num_labels=1), "teacher": tiny_bert(1, num_labels=1)}, "the task has numbers. Give a"),
    ]
    for options, message in refused:
        with pytest.raises(InputError, match=message):
            student(tmp_path, **options).train()


def test_a_checkpoint_is_resumed_as_it_was_written(tmp_path: Path) -> None:
    without = {key: value for key, value in PINS.items() if key != "renew"}
    student(tmp_path / "a", **SAVED).train()
    student(tmp_path / "b", section=without, **SAVED).train()
    for folder, section, words in (("a", without, "with a teacher that is"), ("b", PINS, "without a teacher that is")):
        checkpoint = str(tmp_path / folder / "checkpoint-12")
        with pytest.raises(InputError, match=f"was written {words} renewed and cannot go on with"):
            student(tmp_path / folder, section=section, num_train_epochs=3).train(resume_from_checkpoint=checkpoint)
    wider = tiny_bert(intermediate_size=64, **NO_DROPOUT).double()
    trainer = student(tmp_path / "a", model=wider)
    trainer.state.eval_steps = 2
    with pytest.raises(InputError, match=r"the teacher is of another model: bert\.encoder\.layer\.0\.intermediate"):
        trainer.features.begin(trainer.run_of(12, 6), tmp_path / "a/checkpoint-12", 12)
