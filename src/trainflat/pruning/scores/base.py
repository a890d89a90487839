"""Defines the base class of scores, and how a pruner takes one."""

import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.registry import Registry
from trainflat.objective import Objective
from trainflat.pruning.masks import Masks

T = TypeVar("T")
ObjectiveSource = Objective | Callable[[int, int], Objective] | None
"""The loss on some rows; or a function that makes one from (rows, rows per micro-batch), called only if needed."""


@dataclass(frozen=True)
class ScoreInputs:
    """Holds everything that a score may look at when weights are chosen.

    Attributes:
        weights: The weights to rank, by name.
        masks: Which of them are pruned already; these go first, whatever their score.
        seed: Of scores that draw.
        objective: Of scores that measure the loss; the others never look at it.
    """

    weights: Mapping[str, nn.Parameter]
    masks: Masks | None = None
    seed: int = 0
    objective: ObjectiveSource = None


class Score(Configurable, ABC):
    """Ranks weights: the lowest are pruned first. A method writes :meth:`values` and nothing else.

    Choosing and zeroing are the matter of whoever uses it: :class:`~trainflat.pruning.Pruner` at once,
    :class:`~trainflat.pruning.gates.GradualPruner` while the model trains. Its options are annotated attributes
    (:class:`~trainflat.core.configurable.Configurable`).
    """

    measures: ClassVar[bool] = False
    """Whether it makes passes of its own over training rows, so that it needs an objective."""

    observes: ClassVar[bool] = False
    """Whether it remembers the gradients of training (:class:`~trainflat.pruning.scores.observed.ObservedScore`)."""

    @abstractmethod
    def values(self, inputs: ScoreInputs) -> Mapping[str, Tensor]:
        """Returns a number for each weight, in tensors of the weights' shapes."""

    def objective_from(self, given: ObjectiveSource) -> ObjectiveSource:
        """Returns the objective to keep for a whole run; a score that measures nothing needs none."""
        return given

    def begin(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Forgets what was observed: a training of these weights begins."""

    def observe(self, lr: float, scale: float = 1.0) -> None:
        """Takes in the gradients of a step, complete and not yet clipped.

        Args:
            lr: Learning rate of the coming step.
            scale: What the gradients are multiplied by (a loss scaler's factor).
        """

    @property
    def ready(self) -> bool:
        """Returns whether there is something to rank by."""
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what a resumed run needs, for safetensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what :meth:`state_dict` returned; other keys are ignored."""


class ScoredBy(Configurable):
    """Lets a pruner name its kind of score: ``class MagnitudePruner(Pruner, score=Magnitude)``.

    The options of the score follow those of the pruner in its signature. Recipes, ``trainflat list`` and the docs read
    them there; the pruner keeps their values as attributes.
    """

    score_class: ClassVar[type[Score]]

    def __init_subclass__(cls, score: type[Score] | None = None) -> None:
        super().__init_subclass__()
        if score is not None:
            own = [p for p in cls.__signature__.parameters.values() if p.name != "score"]
            added = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in _options(score).values()]
            cls.score_class, cls.__signature__ = score, Signature([*own, *added])

    def take_score(self, given: Score | None, options: Mapping[str, Any]) -> None:
        """Keeps the score that was given, or makes one of the pruner's own kind from its options.

        Raises:
            InputError: a score was given, and options besides.
        """
        if given is not None and options:
            raise InputError(
                f"a score was given, and options of one besides: {', '.join(options)}. Give one of the two."
            )
        self.score = given or self.score_class(**options)
        vars(self).update({key: getattr(self.score, key) for key in _options(type(self.score))})


class PrunerTable(Registry[T]):
    """Maps names to pruners; a score in the table stands for the pruner that ranks by it.

    Args:
        kind: As for :class:`~trainflat.core.registry.Registry`; so are the other arguments.
        pruner: Class of the pruner that takes a score.
    """

    def __init__(self, kind: str, pruner: type[Any], **rest: Any) -> None:
        super().__init__(kind, **rest)
        self.pruner = pruner
        self._made: dict[type[Score], type[T]] = {}

    def __getitem__(self, name: str) -> type[T]:
        member: type[Any] = super().__getitem__(name)
        if not issubclass(member, Score):
            return member
        if member not in self._made:
            made = types.new_class(f"{self.pruner.__name__}By{member.__name__}", (self.pruner,), {"score": member})
            made.__doc__ = member.__doc__
            self._made[member] = made
        return self._made[member]


def _options(score: type[Score]) -> dict[str, Parameter]:
    return dict(signature(score, eval_str=True).parameters)
