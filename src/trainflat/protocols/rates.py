"""Chooses a stage's learning rate on held-out training rows."""

import copy
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from trainflat.core.rng import derive_seed
from trainflat.protocols.phases import Phase
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.workspace import Workspace, train
from trainflat.records.run import Training
from trainflat.tasks.base import EncodedSplit


def train_phase(
    workspace: Workspace, stage: Planned, model: PreTrainedModel, phase: Phase, **features: Any
) -> Produced:
    """Trains ``model`` in place as a phase says; of several learning rates with the one that is best on held-out rows.

    The record's ``features`` then hold the score of each rate. A run that is killed goes on with the rate it was at.
    """
    if not phase.several:
        return train(replace(workspace, options=phase.applied(workspace.options)), stage, model, **features)
    scores = {rate: _trial(_aside(workspace, phase, rate), stage, rate, model, features) for rate in phase.lr or ()}
    best = max(scores, key=lambda rate: scores[rate])  # the first of equal ones
    workspace.progress.say(f"{stage.name}: learning rate {best:g}, by {_listed(scores)} on held-out training rows")
    produced = train(replace(workspace, options=phase.applied(workspace.options, best)), stage, model, **features)
    assert produced.training is not None, "it was trained"
    found = {"chosen": best, "scores": [[rate, score] for rate, score in scores.items()]}
    more = (produced.training.features or {}) | {"rates": found}
    return replace(produced, training=produced.training.model_copy(update={"features": more}))


def _aside(workspace: Workspace, phase: Phase, rate: float) -> Workspace:
    """Returns the workspace in which a rate is tried: with some of the training rows in place of evaluation's."""
    rows = workspace.train_split
    learned, held = held_out(rows, phase.held_rows(len(rows)), workspace.seed)
    options = phase.applied(workspace.options, rate)
    return replace(workspace, train_split=learned, evaluation={workspace.task.split: held}, options=options)


def _trial(aside: Workspace, stage: Planned, rate: float, model: PreTrainedModel, features: dict[str, Any]) -> float:
    """Trains a copy on the rows that are not held out, and returns its score on those that are."""
    # Its checkpoints stay until the run ends: resumed after a kill, a trial that was finished has nothing left to do.
    trial = replace(stage, name=f"{stage.name}-lr-{rate:g}")
    trained = train(aside, trial, copy.deepcopy(model), **features)
    return _score(trained.training, f"{aside.task.split}/{aside.task.metric}")


def held_out(split: EncodedSplit, rows: int, seed: int) -> tuple[EncodedSplit, EncodedSplit]:
    """Splits training rows into those to learn from and so many to score, drawn by the seed, each in its order."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive_seed(seed, "held-out rows")))
    drawn = set(order[:rows].tolist())
    parts = [i for i in range(len(split)) if i not in drawn], sorted(drawn)
    learned, held = (
        EncodedSplit(split.name, [split.rows[i] for i in part], [split.lengths[i] for i in part]) for part in parts
    )
    return learned, held


def _score(training: Training | None, key: str) -> float:
    """Returns the score of the weights that a training ended with.

    The highest score may be another's: of weights that an average, which came later, does not stand for.
    """
    assert training is not None, "it was trained"
    last = training.evaluations[-1]  # the Trainer evaluates at the last step, whatever evaluate_every is
    return next((one for one in training.evaluations if one["step"] == training.best_step), last)[key]


def _listed(scores: dict[float, float]) -> str:
    return ", ".join(f"{score:.1f} at {rate:g}" for rate, score in scores.items())
