"""Averages in the Trainer, and what the model held at each of its moments."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import SAM, accuracy, arguments
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer

SWA = {"name": "swa", "start": 0.5, "every": 0.5}


EMA = {"name": "ema", "decay": 0.9}


MEMBERS = pytest.mark.parametrize("averaging", [SWA, EMA], ids=["swa", "ema"])


State = dict[str, Tensor]


def state_of(model: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: State, other: State) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class Watched(TrainerCallback):
    """A training, and what its model held after each step, while it was scored, and after it was scored."""

    def __init__(self, folder: Path, averaging: Any, scores: dict[int, float] | None = None, **options: Any) -> None:
        self.raw: dict[int, State] = {}
        self.scored: dict[int, State] = {}
        self.after: dict[int, State] = {}
        self.scores = scores
        model = tiny_bert(hidden_dropout_prob=0.1)
        every = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 4}
        best = {"metric_for_best_model": "eval_validation_accuracy", "greater_is_better": True}
        callbacks = [self, *options.pop("callbacks", ())]
        self.trainer = FlatTrainer(
            model,
            arguments(folder, **({**every, **best, "load_best_model_at_end": True} | options)),
            train_dataset=random_split(),
            eval_dataset={"validation": random_split(20, seed=9)},
            data_collator=collate,
            optimizer={**SAM, "lr": 1e-2},
            masks=MagnitudePruner(model, sparsity=0.5).prune(),
            averaging=averaging,
            score=self.score,
            callbacks=callbacks,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.raw[state.global_step] = state_of(self.trainer.model)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after[state.global_step] = state_of(self.trainer.model)

    def score(self, split: Any, predictions: Any) -> dict[str, float]:
        step = self.trainer.state.global_step
        self.scored[step] = state_of(self.trainer.model)
        return accuracy(split, predictions) if self.scores is None else {"accuracy": self.scores[step]}
