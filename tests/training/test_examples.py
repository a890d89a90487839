"""The losses of single rows, and the second pass over those that feel the displacement most."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import NO_DROPOUT, arguments, assert_same_weights, trained
from trainflat.anatomy.heads import row_losses as example_losses
from trainflat.core.errors import InputError
from trainflat.training import FlatTrainer

Rows = list[dict[str, Any]]


def spans_model() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": 120, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForQuestionAnswering(BertConfig(**sizes, intermediate_size=32, **NO_DROPOUT))  # type: ignore[arg-type]


def head(kind: str) -> tuple[nn.Module, Rows]:
    """A model and eight rows of the same length."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 120, (8, 9), generator=generator).tolist()
    rows: Rows = [{"input_ids": row, "attention_mask": [1] * 9} for row in ids]
    for i, row in enumerate(rows):
        if kind == "spans":
            row |= {"start_positions": i % 5, "end_positions": i % 5 + 3}
        else:
            row["labels"] = i % 2 if kind == "classes" else i / 4
    if kind == "spans":
        return spans_model(), rows
    changed = {"num_labels": 1, "problem_type": "regression"} if kind == "numbers" else {}
    return tiny_bert(**NO_DROPOUT, **changed), rows  # type: ignore[arg-type]


def stacked(rows: Rows) -> dict[str, Tensor]:
    batch = {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


kinds = pytest.mark.parametrize("kind", ["classes", "numbers", "spans"])


@kinds
def test_the_losses_of_rows_are_those_of_the_model_on_each_alone(kind: str) -> None:
    model, rows = head(kind)
    model.double()
    outputs = model(**stacked(rows))
    losses = example_losses(outputs, stacked(rows))
    alone = torch.stack([model(**stacked([row])).loss for row in rows])
    torch.testing.assert_close(losses, alone.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses.mean(), outputs.loss.detach(), rtol=1e-12, atol=1e-12)


def test_a_position_beyond_the_row_is_left_out_of_the_mean() -> None:
    model, rows = head("spans")
    rows[1]["end_positions"] = 9
    rows[2] |= {"start_positions": 40, "end_positions": 40}
    outputs = model(**stacked(rows))
    losses = example_losses(outputs, stacked(rows))
    torch.testing.assert_close(losses.mean(), outputs.loss.detach())
    assert losses[2] == 0


def test_halves_are_widened() -> None:
    model, rows = head("classes")
    assert example_losses(model.bfloat16()(**stacked(rows)), stacked(rows)).dtype == torch.float32


@kinds
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_second_pass_takes_the_rows_whose_loss_rose_most(tmp_path: Path, kind: str, accumulate: int) -> None:
    """One step by hand, with the model run on each row alone."""
    lr, rho = 0.1, 0.5
    model, rows = head(kind)
    by_hand = head(kind)[0].double().train()
    params = list(by_hand.parameters())
    before = [by_hand(**stacked([row])).loss.item() for row in rows]
    first = torch.autograd.grad(by_hand(**stacked(rows)).loss, params, allow_unused=True)
    given = [(p, g) for p, g in zip(params, first, strict=True) if g is not None]
    norm = torch.stack([g.norm() for _, g in given]).norm()
    origin = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, g in given:
            p.add_(rho * g / norm)
    rise = torch.tensor([by_hand(**stacked([row])).loss.item() for row in rows]) - torch.tensor(before)
    chosen = [rows[i] for i in rise.topk(3).indices.tolist()]
    second = torch.autograd.grad(by_hand(**stacked(chosen)).loss, params, allow_unused=True)
    with torch.no_grad():
        for p, w, g in zip(params, origin, second, strict=True):
            p.copy_(w if g is None else w - lr * g)

    trainer = FlatTrainer(
        model.double(),
        arguments(
            tmp_path,
            max_steps=1,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            per_device_train_batch_size=8 // accumulate,
            gradient_accumulation_steps=accumulate,
        ),
        train_dataset=rows,
        data_collator=stacked,
        optimizer={"name": "esam", "base": "sgd", "lr": lr, "rho": rho, "beta": 1.0, "gamma": 0.3},
    )
    trainer.train()
    assert_same_weights(trainer.model, by_hand, atol=1e-12)
    assert trainer.passes.count == pytest.approx(1 + 1 / 3 + 0.3)
    logged = next(e for e in trainer.state.log_history if "loss_gap" in e)
    assert logged["loss_gap"] == pytest.approx(rise.mean().item(), abs=1e-6)


@pytest.mark.parametrize("name", ["looksam", "gsam", "friendlysam", "fisher-ssam", "esam"])
def test_methods_of_the_whole_window_refuse_micro_batches(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="Use perturb_over: window"):
        trained(tmp_path, {"name": name, "lr": 1e-3}, perturb_over="micro-batch")


def test_label_smoothing_hides_the_losses_of_rows(tmp_path: Path) -> None:
    trainer = FlatTrainer(
        tiny_bert(),
        arguments(tmp_path, max_steps=2, label_smoothing_factor=0.1),
        train_dataset=random_split(),
        data_collator=collate,
        optimizer={"name": "esam", "lr": 1e-3},
    )
    with pytest.raises(InputError, match="ESAM chooses rows by their losses, and label smoothing"):
        trainer.train()


def test_rows_are_compared_under_the_same_dropout(tmp_path: Path) -> None:
    """Without a displacement no loss rises; other dropout would move it by about 0.1."""
    trainer = FlatTrainer(
        tiny_bert(hidden_dropout_prob=0.5).double(),
        arguments(tmp_path, num_train_epochs=1, per_device_train_batch_size=4, gradient_accumulation_steps=2),
        train_dataset=random_split(),
        data_collator=collate,
        optimizer={"name": "esam", "rho": 0.0, "lr": 1e-3},
    )
    trainer.train()
    assert [e["loss_gap"] for e in trainer.state.log_history if "loss_gap" in e] == [0.0] * 6
