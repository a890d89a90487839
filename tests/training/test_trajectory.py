"""FlatTrainer takes the steps of a loop written by hand, whatever the batch is cut into."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tests.conftest import tiny_bert
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split, train
from tests.support.training import ADAMW, NO_DROPOUT, SAM, arguments, assert_same_weights, trained
from trainflat import optim
from trainflat.core.errors import ZerosRevived
from trainflat.pruning import MagnitudePruner, Masks
from trainflat.training import FlatArguments, FlatTrainer

# Micro-batches, masks, rows; of 45 rows the last window is smaller, and so is its last part.
CUTS: list[Any] = [*product((1, 2, 4), (None, 0.6), (48, 45))]


@pytest.mark.parametrize("recipe", [ADAMW, SAM], ids=["adamw", "sam"])
@pytest.mark.parametrize("cut", quick(CUTS, (1, 0.6, 45), (2, 0.6, 45), (4, 0.6, 45), (2, None, 48)), ids=str)
def test_takes_the_steps_of_a_plain_loop(tmp_path: Path, cut: Any, recipe: dict[str, Any]) -> None:
    accumulate, sparsity, rows = cut
    by_hand = tiny_bert(**NO_DROPOUT).double()
    masks = None if sparsity is None else MagnitudePruner(by_hand, sparsity=sparsity).prune()
    losses = train(by_hand, random_split(rows), recipe, epochs=2, batch_size=8, seed=3, masks=masks)

    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = trained(tmp_path, recipe, rows=rows, masks=sparsity, **cut)

    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=1e-6)  # the Trainer sums losses in float32
    assert_same_weights(trainer.model, by_hand)


def per_item(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """A loss of the user's, written as transformers' documentation asks for it."""
    if num_items_in_batch is None:
        return torch.nn.functional.cross_entropy(outputs.logits, labels)
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize("recipe", [ADAMW, SAM], ids=["adamw", "sam"])
@pytest.mark.parametrize("accumulate", quick([2, 1, 4], 2))
def test_a_loss_function_of_the_users_takes_the_same_steps(
    tmp_path: Path, accumulate: int, recipe: dict[str, Any]
) -> None:
    by_hand = tiny_bert(**NO_DROPOUT).double()
    losses = train(by_hand, random_split(48), recipe, epochs=2, batch_size=8, seed=3, masks=None)
    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = trained(tmp_path, recipe, loss=per_item, **cut)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=1e-6)
    assert_same_weights(trainer.model, by_hand)


def test_without_an_lr_it_is_that_of_the_arguments(tmp_path: Path) -> None:
    trainer = trained(tmp_path, "sam", max_steps=1, learning_rate=3e-4)
    assert trainer.flat_optimizer is not None and trainer.flat_optimizer.defaults["lr"] == 3e-4


def test_without_the_remedy_the_trainer_multiplies_the_gradient_by_the_micro_batches(tmp_path: Path) -> None:
    """The upstream bug; when this fails, transformers has mended it and the remedy can go."""
    norms = {}
    for kind, accumulate in [(Trainer, 1), (Trainer, 2), (FlatTrainer, 2)]:
        given = arguments(
            tmp_path,
            max_steps=1,
            per_device_train_batch_size=8 // accumulate,
            gradient_accumulation_steps=accumulate,
            learning_rate=1e-3,
        )
        if kind is Trainer:
            ours = {"perturb_over", "sync_perturbation", "length_grouped"}
            given = TrainingArguments(**{k: v for k, v in _settings(given).items() if k not in ours})
        rows = [random_split(8)[i] for i in range(8)]  # one window; no `lengths`, so that both use the same sampler
        trainer = kind(tiny_bert(**NO_DROPOUT), given, train_dataset=rows, data_collator=collate)
        trainer.train()
        norms[kind, accumulate] = trainer.state.log_history[0]["grad_norm"]
    assert norms[Trainer, 2] == pytest.approx(2 * norms[Trainer, 1], rel=0.01)
    assert norms[FlatTrainer, 2] == pytest.approx(norms[Trainer, 1], rel=1e-4)


def _settings(given: FlatArguments) -> dict[str, Any]:
    keys = ["output_dir", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"]
    keys += ["disable_tqdm", "use_cpu", "logging_steps", "seed", "remove_unused_columns", "dataloader_pin_memory"]
    return {key: getattr(given, key) for key in keys} | {"report_to": "none", "save_strategy": "no"}


def test_a_ball_of_radius_zero_is_the_base_optimizer_bit_for_bit(tmp_path: Path) -> None:
    flat = trained(tmp_path, {**SAM, "rho": 0.0})
    base = trained(tmp_path, ADAMW)
    assert_same_weights(flat.model, base.model, atol=0)


def test_both_passes_draw_the_same_dropout(tmp_path: Path) -> None:
    gaps = []
    for rho in (0.0, 1e-9):
        trainer = FlatTrainer(
            tiny_bert(hidden_dropout_prob=0.5).double(),
            arguments(tmp_path, gradient_accumulation_steps=2, per_device_train_batch_size=4, num_train_epochs=1),
            train_dataset=random_split(),
            data_collator=collate,
            optimizer={**SAM, "rho": rho},
        )
        trainer.train()
        gaps += [entry["loss_gap"] for entry in trainer.state.log_history if "loss_gap" in entry]
    assert max(map(abs, gaps)) < 1e-7  # other dropout moves this loss by about 0.1


def test_a_micro_batch_of_the_whole_window_is_the_window(tmp_path: Path) -> None:
    window = trained(tmp_path, SAM)
    micro = trained(tmp_path, SAM, perturb_over="micro-batch")
    assert_same_weights(window.model, micro.model, atol=0)


def test_the_micro_batch_form_perturbs_by_each_micro_batch(tmp_path: Path) -> None:
    """One step by hand: the mean of the gradients, each taken at its own displaced weights."""
    split, lr, rho = random_split(8), 0.1, 0.5
    recipe = {"name": "sam", "base": "sgd", "lr": lr, "rho": rho}
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1, "max_grad_norm": 0.0}
    trainer = trained(tmp_path, recipe, rows=8, perturb_over="micro-batch", lr_scheduler_type="constant", **cut)

    model = tiny_bert(**NO_DROPOUT).double()
    model.train()
    params = list(model.parameters())
    order = trainer._sampler.order(0)  # type: ignore[union-attr]
    total = [torch.zeros_like(p) for p in params]
    for part in (order[:4], order[4:]):
        batch = collate([split[i] for i in part])
        first = torch.autograd.grad(model(**batch).loss / 2, params)
        norm = torch.stack([g.norm() for g in first]).norm()
        with torch.no_grad():
            for p, g in zip(params, first, strict=True):
                p.add_(rho * g / norm)
        second = torch.autograd.grad(model(**batch).loss / 2, params)
        with torch.no_grad():
            for p, g, s, t in zip(params, first, second, total, strict=True):
                p.sub_(rho * g / norm)
                t.add_(s)
    with torch.no_grad():
        for p, t in zip(params, total, strict=True):
            p.sub_(lr * t)
    assert_same_weights(trainer.model, model, atol=1e-12)


def test_an_optimizer_that_the_user_made_works_too(tmp_path: Path) -> None:
    model = tiny_bert(**NO_DROPOUT).double()
    optimizer = optim.SAM(model.parameters(), torch.optim.AdamW, rho=0.05, lr=1e-3, weight_decay=0.0)
    trainer = FlatTrainer(
        model, arguments(tmp_path), train_dataset=random_split(), data_collator=collate, optimizers=(optimizer, None)
    )
    trainer.train()
    ours = trained(tmp_path, {"name": "sam", "rho": 0.05, "lr": 1e-3, "weight_decay": 0.0})
    assert_same_weights(model, ours.model, atol=1e-12)
    assert optimizer.base.param_groups[0]["lr"] == 0.0  # the schedule reached the base


def test_zeros_stay_zero_and_passes_are_counted(tmp_path: Path) -> None:
    trainer = trained(tmp_path, SAM, masks=0.9, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    assert trainer.masks is not None
    trainer.masks.check(trainer.model)
    zeros = sum(int((p == 0).sum()) for n, p in trainer.model.named_parameters() if n in trainer.masks)
    assert zeros == round(0.9 * trainer.masks.entries)
    assert trainer.passes.count == 2 * trainer.state.global_step == 24
    entry = next(e for e in trainer.state.log_history if "loss" in e)
    assert entry["perturbation"] == pytest.approx(0.05, rel=1e-6)
    assert entry["loss_gap"] > 0


def test_masks_that_do_not_hold_are_refused(tmp_path: Path) -> None:
    model = tiny_bert()
    ones = Masks.ones(model)
    zeros = Masks({name: torch.zeros_like(mask) for name, mask in ones.items()})
    with pytest.raises(ZerosRevived):
        FlatTrainer(model, arguments(tmp_path), train_dataset=random_split(), data_collator=collate, masks=zeros)
