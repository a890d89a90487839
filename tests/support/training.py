"""FlatTrainer on a tiny BERT: the arguments, one whole training, and what two trainings must share."""

from pathlib import Path
from typing import Any

import torch

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from trainflat.pruning import MagnitudePruner
from trainflat.tasks.base import EncodedSplit
from trainflat.training import FlatArguments, FlatTrainer

ADAMW = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1}


SAM = {"name": "sam", "rho": 0.05, "lr": 1e-3, "weight_decay": 0.1}


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def arguments(folder: Path, **options: Any) -> FlatArguments:
    settings = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 3,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
    return FlatArguments(**(settings | options))


def trained(
    folder: Path, recipe: Any, *, rows: int = 48, masks: float | None = None, loss: Any = None, **options: Any
) -> FlatTrainer:
    model = tiny_bert(**NO_DROPOUT).double()
    found = None if masks is None else MagnitudePruner(model, sparsity=masks).prune()
    trainer = FlatTrainer(
        model,
        arguments(folder, **options),
        train_dataset=random_split(rows),
        data_collator=collate,
        optimizer=recipe,
        masks=found,
        compute_loss_func=loss,
    )
    trainer.train()
    return trainer


def assert_same_weights(one: torch.nn.Module, two: torch.nn.Module, atol: float = 1e-10) -> None:
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def accuracy(split: EncodedSplit, predictions: Any) -> dict[str, float]:
    right = [int(row["labels"] == guess) for row, guess in zip(split.rows, predictions.argmax(-1), strict=True)]
    return {"accuracy": 100 * sum(right) / len(right)}


def reproducible(trainer: FlatTrainer) -> list[dict[str, float]]:
    clocks = ("runtime", "per_second", "preparation", "flos", "train_loss")
    return [
        {k: v for k, v in entry.items() if not any(c in k for c in clocks)}
        for entry in trainer.state.log_history
        if "train_runtime" not in entry
    ]
