"""A feature that uses every hook, added to the table by its tests alone; also run by two processes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import nn

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import NO_DROPOUT, arguments
from trainflat.training import FlatTrainer
from trainflat.training.features import ADDED, FEATURES, Feature

LR, SHIFT, READY = 0.05, 0.25, 12


class Toy(Feature):
    """Maximizes a multiplier of the mean square of the logits, while passes see the head's bias shifted."""

    file = "toy.safetensors"
    state_name = "a toy"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.multiplier = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.steps, self.moves, self.seen = 0, [], []

    @property
    def ready(self):
        return self.steps >= READY

    def begin(self, state, step):
        with torch.no_grad():
            self.multiplier.fill_(1.0)
        super().begin(state, step)

    def param_groups(self):
        options = {"lr": LR, "maximize": True, "weight_decay": 0.0, "rho": 0.0, "reduce": True}
        return [{"params": [("multiplier", self.multiplier)], **options, **self.settings}]

    def batch(self, inputs):
        return inputs | {ADDED + "toy": torch.arange(1.0, 1 + len(inputs["labels"])).double().fill_(2.0)}

    @contextmanager
    def passes(self, weight: float, again: bool) -> Iterator[None]:
        self.seen.append(again)
        kept = self.bias.detach().clone()
        with torch.no_grad():
            self.bias.add_(SHIFT)
        try:
            yield
        finally:
            with torch.no_grad():
                self.bias.copy_(kept)

    def terms(self, terms, outputs, inputs, weight):
        rows = inputs[ADDED + "toy"] * outputs["logits"].square().mean(-1)
        return terms | {"toy": self.multiplier * rows.mean()}

    def gradients(self, lr, scale):
        self.moves.append((self.multiplier.item(), self.multiplier.grad.item()))

    def stepped(self, step):
        self.steps += 1

    def logs(self, evaluated):
        return {"multiplier": self.multiplier.item()}

    def state_dict(self):
        return {"multiplier": self.multiplier.detach(), "steps": torch.tensor(self.steps)}

    def load_state_dict(self, state, step):
        self.steps = int(state["steps"])
        with torch.no_grad():
            self.multiplier.copy_(state["multiplier"])

    def record(self):
        return {"toy": {"multiplier": self.multiplier.item()}}

    @property
    def bias(self):
        return self.run.model.classifier.bias


def toy_trainer(folder: Path, recipe: Any, *, settings: Any = None, parts: Any = None, **options: Any) -> FlatTrainer:
    """FlatTrainer with the toy, which no file of the package names."""
    with patch.dict(FEATURES, {"toy": Toy}):
        return FlatTrainer(
            tiny_bert(**NO_DROPOUT).double(),
            arguments(folder, **options),
            train_dataset=random_split(),
            eval_dataset=random_split(8, seed=5),
            data_collator=collate,
            optimizer=recipe,
            toy={"clip": False} if settings is None else settings,
            **(parts or {}),
        )


def main(given: dict[str, Any]) -> None:
    """Trains on each of two processes."""
    options = {"ddp_find_unused_parameters": False, "ddp_backend": "gloo", **given["options"]}
    trainer = toy_trainer(Path(given["out"]), given["recipe"], **options)
    trainer.train()
    tensors = {name: p.detach() for name, p in trainer.model.named_parameters()}
    tensors["multiplier"] = trainer.features["toy"].multiplier.detach()
    save_file(tensors, f"{given['out']}/{trainer.args.process_index}.safetensors")
