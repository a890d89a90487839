"""Structured pruning between trainings: a dense one, and one of each smaller model with the dense one as teacher."""

from collections.abc import Iterator
from dataclasses import replace

from trainflat.distillation import read_distillation
from trainflat.protocols.post_training import PostTraining
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.workspace import Workspace, train

_SELF = {"teacher": "dense", "weight": 0.9, "temperature": 2.0}  # as nn_pruning trains again (Lagunas et al., 2021)


class Structured(PostTraining):
    """Trains a model, prunes heads and units of it at several sizes, and trains each smaller model again.

    Every training is the recipe's. A smaller model learns from the dense one (weight 0.9, temperature 2) unless the
    recipe names another teacher. Options are those of :class:`PostTraining`.
    """

    fine_tuned = False
    teaches = True

    def plan(self) -> list[Planned]:
        """Lists the trained model and every smaller one."""
        return [Planned("dense", 0.0, trained=True), *self._smaller(trained=True)]

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        """Trains, then prunes copies and trains them again."""
        first, *stages = self.plan()
        dense = workspace.store.recall(first) or train(workspace, first, workspace.untrained())
        yield dense
        taught = retraining(workspace, dense)
        for stage in stages:
            yield workspace.store.recall(stage) or self._retrained(workspace, taught, dense, stage)

    def _retrained(self, workspace: Workspace, taught: Workspace, dense: Produced, stage: Planned) -> Produced:
        small = self.smaller(workspace, dense, stage)
        return replace(
            train(taught, stage, small.model), structure=small.structure, predicted_seconds=small.predicted_seconds
        )


def retraining(workspace: Workspace, dense: Produced) -> Workspace:
    """Returns the workspace in which smaller models are trained: with the dense one as teacher, if there is none."""
    if workspace.teacher is not None:
        return workspace
    options = workspace.options.model_copy(update={"distillation": read_distillation(_SELF)})
    return replace(workspace, options=options, teacher=dense.model)
