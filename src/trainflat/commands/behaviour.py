"""Prepares what behaviour is measured by: the model that stages are compared with, and a suite of tests."""

from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from trainflat.core.errors import InputError
from trainflat.evaluation import predictions_of
from trainflat.evaluation.behaviour import Asked, Behaviour, Original
from trainflat.evaluation.checklist import Questions, Suite, check_task, read_suite
from trainflat.export.loading import load
from trainflat.models import Encoder, weights_sha256
from trainflat.protocols import Protocol, Workspace
from trainflat.protocols.teaching import OWN
from trainflat.recipe import Recipe
from trainflat.tasks.base import Predictions, Task
from trainflat.training.teachers import load_teacher, load_teacher_on_meta

_TO = "evaluation.loyalty.to"


@dataclass(frozen=True)
class Given:
    """Holds what a recipe names for its measures of behaviour.

    Attributes:
        original: The model that stages are compared with, where it is not the run's own dense one.
        suite: Of behavioural tests.
    """

    original: Encoder | None = None
    suite: Suite | None = None

    def hashes(self) -> dict[str, str]:
        """Returns the hashes of both, by what they are called."""
        suite = {} if self.suite is None else {f"cases of suite {self.suite.name}": self.suite.sha256}
        original = self.original
        return suite | ({} if original is None else {f"weights of {original.name}": weights_sha256(original.model)})

    def behaviour(self, recipe: Recipe, workspace: Workspace) -> Behaviour:
        """Makes the measures for a run, with the suite's cases drawn and encoded."""
        split = workspace.evaluation[workspace.task.split]
        progress = workspace.progress
        return Behaviour(
            workspace.task, split, self._original(recipe, workspace), self._asked(recipe, workspace), progress
        )

    def _original(self, recipe: Recipe, workspace: Workspace) -> Original | None:
        options = recipe.evaluation.loyalty
        if options is None:
            return None
        return Original(options.to, partial(_predicted, workspace, self.original), options.base)

    def _asked(self, recipe: Recipe, workspace: Workspace) -> Asked | None:
        options, suite = recipe.evaluation.checklist, self.suite
        if options is None or suite is None:
            return None
        cases = suite.sample(options.cases, options.seed)
        length = recipe.training.max_length
        questions = Questions(
            workspace.task, suite.kind, cases, workspace.tokenizer, max_length=length, labels=options.labels
        )
        return Asked(suite.name, suite.sha256, options.cases, options.seed, questions)


def prepare_behaviour(
    recipe: Recipe, task: Task, protocol: Protocol, encoder: Encoder | None, *, weights: bool
) -> Given:
    """Reads the suite and finds the model that a recipe names.

    Raises:
        InputError: the run has no dense stage to be loyal to; there is no such model or suite; or one that is not for
            this task.
    """
    options, suite = recipe.evaluation.checklist, None
    if options is not None:
        suite = read_suite(options.suite)
        check_task(task, suite.kind, options.labels)
    return Given(_original(recipe, task, protocol, encoder, weights=weights), suite)


def _original(
    recipe: Recipe, task: Task, protocol: Protocol, encoder: Encoder | None, *, weights: bool
) -> Encoder | None:
    options, length = recipe.evaluation.loyalty, recipe.training.max_length
    if options is None:
        return None
    if options.to == OWN:
        if OWN not in (stage.name for stage in protocol.plan()):
            raise InputError(
                f"evaluation.loyalty compares with the run's own dense stage, and protocol {recipe.protocol.name} has "
                f"none. Name a fine-tuned model with {_TO}, or leave it out."
            )
        return None
    if not weights or encoder is None:
        return load_teacher_on_meta(options.to, task.head, encoder, length, _TO)
    original = load_teacher(options.to, task.head, encoder, length, _TO)
    original.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return original


def _predicted(workspace: Workspace, original: Encoder | None) -> Predictions:
    """Returns predictions of the named model, or of the dense stage that an earlier call of the run finished."""
    model: PreTrainedModel = load(workspace.store.path(OWN)) if original is None else original.model
    return predictions_of(model, workspace.evaluation[workspace.task.split], workspace.tokenizer)
