"""Asks a model what its score does not tell: is it loyal to another model, which behavioural tests does it fail?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from trainflat.core.progress import Progress
from trainflat.evaluation.checklist import Questions, judge
from trainflat.evaluation.loyalty import measure_loyalty
from trainflat.records.behaviour import Base, Checklist
from trainflat.tasks.base import EncodedSplit, Predictions, Task


class Original:
    """Holds the predictions of the model that others are compared with, made when they are first asked for.

    Args:
        name: As the record calls it.
        predict: Makes them; not called where :meth:`keep` gave them before.
        base: Of the logarithm in a probability loyalty.
    """

    def __init__(self, name: str, predict: Callable[[], Predictions], base: Base = "e") -> None:
        self.name, self.base = name, base
        self._predict = predict
        self._kept: Predictions | None = None

    def keep(self, predictions: Predictions) -> None:
        """Takes predictions that were made anyway."""
        self._kept = predictions

    @property
    def predictions(self) -> Predictions:
        """Returns the predictions on the main split."""
        if self._kept is None:
            self._kept = self._predict()
        return self._kept


@dataclass(frozen=True)
class Asked:
    """Holds a suite's cases as they were drawn for a run."""

    suite: str
    sha256: str
    most: int
    seed: int
    questions: Questions


@dataclass(frozen=True)
class Behaviour:
    """Measures how models of one task behave; of either part there may be none."""

    task: Task
    split: EncodedSplit
    original: Original | None = None
    asked: Asked | None = None
    progress: Progress | None = None

    def of(self, model: PreTrainedModel, predictions: Predictions) -> dict[str, Any]:
        """Returns the fields of a record that say how a model behaves.

        Args:
            model: May be an int8 copy.
            predictions: Its predictions on ``split``.
        """
        found: dict[str, Any] = {}
        if self.original is not None and self.original.predictions is not predictions:
            found["loyalty"] = measure_loyalty(
                self.task,
                self.split,
                self.original.predictions,
                predictions,
                to=self.original.name,
                base=self.original.base,
            )
        if (asked := self.asked) is not None:
            tests = judge(asked.questions.cases, asked.questions.ask(model, self.progress))
            found["checklist"] = Checklist(
                suite=asked.suite, sha256=asked.sha256, most=asked.most, seed=asked.seed, tests=tests
            )
        return found
