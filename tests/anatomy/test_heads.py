"""Every place that reads logits, labels or losses of rows knows the kind of head, or refuses it by name."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.support.families import SIZES, write
from trainflat.anatomy.heads import check_row_losses, kind_of, row_losses
from trainflat.core.errors import InputError
from trainflat.evaluation import compare_answers
from trainflat.evaluation.predictions import predict
from trainflat.models import load_encoder
from trainflat.objective import Objective
from trainflat.objective.variants import at_temperature
from trainflat.tasks.base import EncodedSplit, Head
from trainflat.training import FlatArguments, FlatTrainer

ROWS, TOKENS, CLASSES = 8, 5, 3
HEADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "classes": ("SequenceClassification", "classes", {"problem_type": "single_label_classification"}),
    "classes, not said": ("SequenceClassification", "classes", {}),
    "labels": ("SequenceClassification", "labels", {"problem_type": "multi_label_classification"}),
    "a number": ("SequenceClassification", "numbers", {"problem_type": "regression", "num_labels": 1}),
    "numbers": ("SequenceClassification", "numbers", {"problem_type": "regression"}),
    "tokens": ("TokenClassification", "tokens", {}),
    "words": ("MaskedLM", "tokens", {}),
    "choices": ("MultipleChoice", "classes", {}),
    "spans": ("QuestionAnswering", "spans", {"num_labels": 2}),
}


def draw(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(0))


def model_and_batch(head: str, seed: int = 0) -> tuple[Any, dict[str, Tensor]]:
    name, kind, options = HEADS[head]
    torch.manual_seed(seed)
    sizes = SIZES | {"num_hidden_layers": 1, "num_labels": CLASSES, "initializer_range": 0.5}
    model = getattr(transformers, f"BertFor{name}")(transformers.BertConfig(**(sizes | options))).eval()
    shape = (ROWS, CLASSES, TOKENS) if head == "choices" else (ROWS, TOKENS)
    batch = {"input_ids": draw(4, 40, *shape), "attention_mask": torch.ones(shape, dtype=torch.long)}
    batch["attention_mask"][0, ..., 3:] = 0
    if kind == "spans":
        return model, batch | {"start_positions": draw(0, TOKENS, ROWS), "end_positions": draw(0, TOKENS, ROWS)}
    labels: dict[str, Tensor] = {"a number": draw(0, 9, ROWS) / 3, "numbers": draw(0, 9, ROWS, CLASSES) / 3}
    labels |= {"labels": draw(0, 2, ROWS, CLASSES).float(), "tokens": draw(0, CLASSES, ROWS, TOKENS)}
    labels |= {"words": draw(4, 40, ROWS, TOKENS)}
    found = labels.get(head, draw(0, CLASSES, ROWS))
    if kind == "tokens":
        found[torch.rand(found.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = -100
    return model, batch | {"labels": found}


def rows_of(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    return [{name: value[i] for name, value in batch.items()} for i in range(ROWS)]


def stacked(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def trained(head: str, folder: Path, optimizer: dict[str, Any], **more: Any) -> FlatTrainer:
    model, batch = model_and_batch(head)
    options = {"max_steps": 1, "per_device_train_batch_size": ROWS, "save_strategy": "no", "use_cpu": True}
    arguments = FlatArguments(str(folder), report_to=[], remove_unused_columns=False, max_grad_norm=0.0, **options)
    trainer = FlatTrainer(
        model, arguments, train_dataset=rows_of(batch), data_collator=stacked, optimizer=optimizer, **more
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("head", HEADS)
def test_losses_of_rows_have_the_mean_that_the_model_calls_its_loss(head: str) -> None:
    model, batch = model_and_batch(head)
    outputs = model(**batch)
    assert kind_of(model, outputs, batch.get("labels")) == HEADS[head][1]
    losses = row_losses(outputs, batch, model)
    assert losses.shape == (ROWS,)
    torch.testing.assert_close(losses.mean(), outputs.loss)
    check_row_losses(model, losses, outputs)


@pytest.mark.parametrize("head", HEADS)
def test_esam_takes_a_step(head: str, tmp_path: Path) -> None:
    trainer = trained(head, tmp_path, {"name": "esam", "lr": 1e-2, "gamma": 0.4})
    assert trainer.passes.count == pytest.approx(1 + 1 / 3 + 0.4)
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())


def test_esam_refuses_a_loss_of_the_head_s_own(tmp_path: Path) -> None:
    class Doubled(transformers.BertForTokenClassification):
        def forward(self, **batch: Any) -> Any:
            outputs = super().forward(**batch)
            outputs.loss = None if outputs.loss is None else 2 * outputs.loss
            return outputs

    model, batch = model_and_batch("tokens")
    model.__class__ = Doubled
    arguments = FlatArguments(str(tmp_path), report_to=[], max_steps=1, use_cpu=True, remove_unused_columns=False)
    given = {"train_dataset": rows_of(batch), "data_collator": stacked, "optimizer": "esam"}
    with pytest.raises(InputError, match="Doubled computes a loss of its own"):
        FlatTrainer(model, arguments, **given).train()


NOISE = {"labels": "several labels per row", "spans": "the batches have none but"}


@pytest.mark.parametrize("head", HEADS)
def test_label_noise_stays_among_the_labels_or_refuses(head: str, tmp_path: Path) -> None:
    optimizer = {"name": "label-noise", "probability": 1.0, "lr": 1e-2}
    if head in NOISE:
        with pytest.raises(InputError, match=NOISE[head]):
            trained(head, tmp_path, optimizer)
        return
    trainer = trained(head, tmp_path, optimizer)
    changed = trainer.passes.window.batches[0].inputs["labels"]
    given = model_and_batch(head)[1]["labels"]
    if HEADS[head][1] == "numbers":
        assert bool((changed != given).all())
    else:
        classes = 40 if head == "words" else CLASSES
        kept = given == -100
        assert torch.equal(changed == -100, changed < 0) and int(kept.sum()) == int((changed == -100).sum())
        assert int(changed.max()) < classes


TAUGHT = {"labels": "has labels", "numbers": "has numbers", "tokens": "has tokens", "words": "has tokens"}


@pytest.mark.parametrize("weight", [0.5, "entropy"])
@pytest.mark.parametrize("head", HEADS)
def test_a_teacher_is_learned_from_or_refused(head: str, weight: Any, tmp_path: Path) -> None:
    teacher = model_and_batch(head, seed=1)[0]
    section = {"teacher": teacher, "weight": weight}
    if (head, weight) == ("a number", "entropy"):
        with pytest.raises(InputError, match="weight entropy is for classes and spans"):
            trained(head, tmp_path, {"name": "sam", "lr": 1e-2}, distillation=section)
        return
    if head in TAUGHT:
        with pytest.raises(InputError, match=f"distillation knows one class .* BertFor.* {TAUGHT[head]}"):
            trained(head, tmp_path, {"name": "sam", "lr": 1e-2}, distillation=section)
        return
    trainer = trained(head, tmp_path, {"name": "esam", "lr": 1e-2}, distillation=section)
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_does_not_depend_on_how_rows_are_cut(head: str) -> None:
    model, batch = model_and_batch(head)
    cut = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 3), slice(3, ROWS))]
    whole = Objective(model, [batch]).value()
    assert Objective(model, cut).value() == pytest.approx(whole, rel=1e-6)
    assert at_temperature(Objective(model, [batch]), 1 + 1e-12).value() == pytest.approx(whole, rel=1e-6)
    if HEADS[head][1] != "numbers":
        assert at_temperature(Objective(model, [batch]), 1e6).value() < whole + 1  # all answers alike


@pytest.mark.parametrize("head", HEADS)
def test_predictions_are_compared_as_the_head_means_them(head: str) -> None:
    model, batch = model_and_batch(head)
    question = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
    other = copy.deepcopy(model)
    assert compare_answers(model, other, [question]).share == 1
    with torch.no_grad():  # all logits change their sign
        last = [module for module in other.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.neg_()
        last.bias.neg_()
    assert compare_answers(model, other, [question]).share < 0.5
    split = EncodedSplit("s", rows_of(question), [TOKENS] * ROWS)
    found = predict(model, split, stacked, 3)
    assert len(found[0] if isinstance(found, tuple) else found) == ROWS


@pytest.mark.parametrize(("head", "kind"), [("labels", "several labels per row"), ("numbers", "numbers")])
def test_a_model_of_another_kind_is_no_classifier(head: str, kind: str, tmp_path: Path) -> None:
    write(tmp_path, model_and_batch(head)[0])
    with pytest.raises(InputError, match=f"was fine-tuned for {kind}, the task has classes"):
        load_encoder(str(tmp_path), Head("classification", ("a", "b", "c")), fine_tuned=True)


class Tagger(nn.Module):
    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign, self.p = sign, nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.tensor([9.0, self.sign, -self.sign]).repeat(len(input_ids), 1)}


def test_labels_are_no_classes() -> None:
    batch = {"input_ids": torch.ones(8, 4, dtype=torch.long), "attention_mask": torch.ones(8, 4, dtype=torch.long)}
    with pytest.raises(InputError, match="Tagger has no configuration that says whether its 3 logits are classes"):
        compare_answers(Tagger(0.4), Tagger(-0.4), [batch])
    assert compare_answers(Tagger(0.4), Tagger(-0.4), [batch], kind="labels").share == 0
    assert compare_answers(Tagger(0.4), Tagger(-0.4), [batch], kind="classes").share == 1


def test_a_head_without_logits_is_refused_by_name() -> None:
    question = {name: value for name, value in model_and_batch("words")[1].items() if name != "labels"}
    model = transformers.BertModel(transformers.BertConfig(**SIZES)).eval()
    with pytest.raises(InputError, match="BertModel returns last_hidden_state"):
        compare_answers(model, model, [question])
    with pytest.raises(InputError, match="BertModel returns last_hidden_state"):
        predict(model, EncodedSplit("s", rows_of(question), [TOKENS] * ROWS), stacked, 3)
