"""2 × 8 rows take the step of 1 × 16, whatever the head's loss is a mean over."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import BertConfig

from tests.support.training import arguments, assert_same_weights
from trainflat.core.errors import InputError
from trainflat.training import FlatTrainer

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TOKENS = [[i % 3] * (i % 8) + [-100] * (8 - i % 8) for i in range(16)]  # the first row has none that counts
HALF_EMPTY = [[-100] * 8 if i % 2 else [i % 3] * 8 for i in range(16)]  # and so has a whole micro-batch of 1
ROWS = [i % 3 if i % 5 else -100 for i in range(16)]
STARTS, ENDS = [i % 9 for i in range(16)], [i % 9 for i in range(16)]  # 8 lies beyond the row and does not count
CLASSES = {"num_labels": 3}


def mean_of_labels(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    return cross_entropy(outputs.logits.flatten(0, -2), labels.flatten())


def sum_of_labels(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    return cross_entropy(outputs.logits.flatten(0, -2), labels.flatten(), reduction="sum") / num_items_in_batch


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "tokens": ("TokenClassification", CLASSES, {"labels": TOKENS}, {}),
    "tokens, a micro-batch without any": ("TokenClassification", CLASSES, {"labels": HALF_EMPTY}, {}),
    "masked words": ("MaskedLM", {}, {"labels": TOKENS}, {}),
    "next words": ("LMHeadModel", {"is_decoder": True}, {"labels": TOKENS}, {}),
    "rows": ("SequenceClassification", CLASSES, {"labels": ROWS}, {}),
    "numbers": ("SequenceClassification", {"num_labels": 1}, {"labels": [i / 16 for i in range(16)]}, {}),
    "several labels": ("SequenceClassification", CLASSES, {"labels": [[1.0, 0.0, i % 2] for i in range(16)]}, {}),
    "spans": ("QuestionAnswering", {}, {"start_positions": STARTS, "end_positions": ENDS}, {}),
    "smoothed tokens": ("TokenClassification", CLASSES, {"labels": TOKENS}, {"label_smoothing_factor": 0.2}),
    "smoothed rows": ("SequenceClassification", CLASSES, {"labels": ROWS}, {"label_smoothing_factor": 0.2}),
    "a user's mean": ("TokenClassification", CLASSES, {"labels": TOKENS}, {"loss": mean_of_labels}),
    "two losses": ("PreTraining", {}, {"labels": TOKENS, "next_sentence_label": [i % 2 for i in range(16)]}, {}),
    "a user's sum": ("TokenClassification", CLASSES, {"labels": TOKENS}, {"loss": sum_of_labels}),
}


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}


def stepped(folder: Path, case: str, size: int, recipe: Any, **options: Any) -> tuple[FlatTrainer, list[float]]:
    head, config, labels, settings = CASES[case]
    torch.manual_seed(0)
    model = getattr(transformers, "BertLMHeadModel" if head == "LMHeadModel" else f"BertFor{head}")(
        BertConfig(**SIZES | DROPOUT | config)
    ).double()
    rows = [{"input_ids": [i + 3] * 8} | {key: values[i] for key, values in labels.items()} for i in range(16)]
    settings = settings | options
    loss = settings.pop("loss", None)
    cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 16 // size}
    args = arguments(folder, max_steps=2, max_grad_norm=0.0, lr_scheduler_type="constant", **cut, **settings)
    trainer = FlatTrainer(
        model, args, train_dataset=rows, data_collator=collate, optimizer=recipe, compute_loss_func=loss
    )
    trainer.train()
    return trainer, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("case", [case for case in CASES if case != "two losses"])
def test_two_halves_are_the_whole(tmp_path: Path, case: str) -> None:
    recipe = {"name": "sam", "base": "sgd", "lr": 0.5}
    whole, expected = stepped(tmp_path, case, 16, recipe)
    for size in (8, 1):
        parts, losses = stepped(tmp_path, case, size, recipe)
        assert losses == pytest.approx(expected, abs=1e-6)  # the Trainer sums them in float32
        assert_same_weights(whole.model, parts.model, atol=1e-8)  # label smoothing sums in float32


def test_a_teacher_s_share_goes_by_rows_and_the_task_s_by_spans(tmp_path: Path) -> None:
    config = BertConfig(**SIZES | DROPOUT)
    torch.manual_seed(1)
    teacher = transformers.BertForQuestionAnswering(config).double()

    def taught(size: int, weight: Any) -> FlatTrainer:
        torch.manual_seed(0)
        rows = [{"input_ids": [i + 3] * 8, "start_positions": STARTS[i], "end_positions": ENDS[i]} for i in range(16)]
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 16 // size}
        trainer = FlatTrainer(
            transformers.BertForQuestionAnswering(config).double(),
            arguments(tmp_path, max_steps=2, max_grad_norm=0.0, **cut),
            train_dataset=rows,
            data_collator=collate,
            optimizer={"name": "sam", "base": "sgd", "lr": 0.5},
            distillation={"teacher": teacher, "weight": weight},
        )
        trainer.train()
        return trainer

    for weight in (0.5, "entropy"):
        assert_same_weights(taught(16, weight).model, taught(4, weight).model, atol=1e-8)


def test_losses_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    stepped(tmp_path, "two losses", 16, "sam")
    with pytest.raises(InputError, match=r"labels and next_sentence_label are cut differently .* Use gradient"):
        stepped(tmp_path, "two losses", 8, "sam")
