"""Structured pruning between trainings: a dense one, and one of each smaller model with the dense one as teacher."""

from collections.abc import Iterator
from dataclasses import replace

from trainflat.protocols.post_training import PostTraining
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.teaching import retraining, untaught
from trainflat.protocols.workspace import Workspace, train


class Structured(PostTraining):
    """Trains a model, prunes heads and units of it at several sizes, and trains each smaller model again.

    Every training is the recipe's. A smaller model learns from the dense one (weight 0.9, temperature 2, unless
    ``training.distillation`` says otherwise with ``teacher: dense``) or from another teacher that the recipe names.
    Options are those of :class:`PostTraining`; with a ``method`` it is :class:`LearnedStructure` that runs.
    """

    fine_tuned = False
    teaches = True

    def plan(self) -> list[Planned]:
        """Lists the trained model and every smaller one."""
        return [Planned("dense", 0.0, trained=True), *self._smaller(trained=True)]

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        """Trains, then prunes copies and trains them again."""
        first, *stages = self.plan()
        dense = workspace.store.recall(first) or train(untaught(workspace), first, workspace.untrained())
        yield dense
        taught = retraining(workspace, dense)
        for stage in stages:
            yield workspace.store.recall(stage) or self._retrained(workspace, taught, dense, stage)

    def _retrained(self, workspace: Workspace, taught: Workspace, dense: Produced, stage: Planned) -> Produced:
        small = self.smaller(workspace, dense, stage)
        return replace(
            train(taught, stage, small.model), structure=small.structure, predicted_seconds=small.predicted_seconds
        )
