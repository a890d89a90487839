"""Gradual pruners: a score and a cut, again and again while the model trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.schedules import ScheduleOption
from trainflat.pruning import scores as by
from trainflat.pruning.choice import keep_highest
from trainflat.pruning.gates.base import Gate
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import ScopeOption, SparsityOption, Steps
from trainflat.pruning.scores.base import Score, ScoredBy, ScoreInputs


class GradualPruner(ScoredBy, Gate):
    """Drops the weights with the lowest scores every so many steps; zeros stay zero.

    Pruned weights get no gradient and are set to zero again after each step, so optimizers, perturbations and weight
    decay never move them (:class:`~trainflat.pruning.MaskEnforcer`). Departs from Zhu and Gupta (2017), and from the
    magnitude baseline of Sanh et al. (2020), which chooses anew in every forward pass: there a pruned weight keeps its
    value behind the mask and returns if others shrink below it.

    Args:
        model: Whose weights are pruned.
        sparsity: Share of the weights to drop in the end, in [0, 1).
        scope: ``"layer"`` ranks each matrix on its own, ``"global"`` all weights together.
        schedule: When the sparsity rises; see :class:`~trainflat.pruning.gates.base.Gate`.
        every: Optimizer steps between two choices; one more is made where the schedule arrives.
        score: Which weights matter; a named pruner such as :class:`GradualMagnitude` makes its own of ``options``.
        **options: Of the named pruner's score.

    Raises:
        InputError: for options that cannot be used; when training begins, also for a score that measures the loss where
            nobody gives an objective.
    """

    score_class: ClassVar[type[Score]] = by.Magnitude

    def __init_subclass__(cls, score: type[Score] | None = None) -> None:
        super().__init_subclass__(score)
        cls.observes, cls.needs_weights = cls.score_class.observes, cls.score_class.measures

    sparsity: SparsityOption = 0.9
    scope: ScopeOption = "layer"
    schedule: ScheduleOption = "cubic"
    every: Steps = 100

    def __init__(self, model: nn.Module, *args: Any, score: Score | None = None, **options: Any) -> None:
        of_score = self.take_options(args, options)
        Gate.__init__(self, model, self.schedule)
        self.take_score(score, of_score)
        self.observes, self.needs_weights = self.score.observes, self.score.measures

    @property
    def kind(self) -> str:
        own = type(self.score) is self.score_class
        return super().kind if own else f"{super().kind} by {type(self.score).__name__}"

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return "sparsity", self.sparsity

    @classmethod
    def check_length(cls, options: Any, total_steps: int) -> None:
        super().check_length(options, total_steps)
        if getattr(options, "observes", cls.observes) and options.schedule.share(0, total_steps) > 0:
            raise InputError(
                f"the schedule prunes before the first step, and {cls.__name__} ranks by gradients; there "
                "are none yet. Give it a start of at least 1 step."
            )

    def prepare(self) -> None:
        self.refuse_denser_than(self.sparsity)
        self._dropped = 0.0
        self._hold(Masks.ones(self.weights))
        self.score.begin(self.weights)
        self.objective = self.score.objective_from(self.objective)
        if self.score.measures:
            torch.rand(4)  # recorded runs drew four numbers before their first step; dropout goes on from there

    def observe(self, lr: float, weight: float = 1.0) -> None:
        self.score.observe(lr, weight)

    def advance(self, step: int) -> None:
        self.step = step
        wanted = self.schedule.value(step, self.total_steps, 0.0, self.sparsity)
        due = step % self.every == 0 and self.score.ready
        if wanted > self._dropped and (due or self.settled):
            self._dropped = wanted
            inputs = ScoreInputs(self.weights, self._masks, self.seed, self.objective)
            self._hold(keep_highest(self.score.values(inputs), wanted, self.scope, self._masks))

    @contextmanager
    def applied(self) -> Iterator[None]:
        if self.held is not None:
            self.held.mask_weights()  # zeros already, but in an average of weights that stands in for them
        yield

    def masks(self) -> Masks:
        return self._masks

    def state_dict(self) -> dict[str, Tensor]:
        return (
            super().state_dict()
            | {"dropped": torch.tensor(self._dropped, dtype=torch.float64)}
            | {f"masks.{name}": torch.from_numpy(bits) for name, bits in self._masks.packed.items()}
            | self.score.state_dict()
        )

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        shapes = {name: tuple(w.shape) for name, w in self.weights.items()}
        for name, shape in shapes.items():
            if f"masks.{name}" not in state or state[f"masks.{name}"].numel() != (prod(shape) + 7) // 8:
                raise InputError(f"the masks are of another model: {name} differs. Resume with the same model.")
        self._dropped = float(state["dropped"])
        self._hold(Masks.of_packed({name: state[f"masks.{name}"].cpu().numpy() for name in shapes}, shapes))
        self.score.load_state_dict(state)

    def _hold(self, masks: Masks) -> None:
        self._masks = masks
        if self.held is None:
            self.held = masks.hold(self.model)
        else:
            self.held.replace(masks)
        self.held.mask_weights()


class GradualMagnitude(GradualPruner, score=by.Magnitude):
    """Drops the weights with the smallest absolute values (Zhu and Gupta 2017; the baseline of Sanh et al. 2020).

    Example:
        >>> model = torch.nn.Linear(8, 8)
        >>> gate = GradualMagnitude(model, sparsity=0.75, schedule="linear", every=1)
        >>> gate.begin(total_steps=3)
        >>> for step in range(3):
        ...     gate.advance(step + 1)
        ...     print(int((model.weight != 0).sum()))
        48
        32
        16
    """


class GradualRandom(GradualPruner, score=by.Random):
    """Drops weights at random, in one order that the run's seed draws."""


class GradualLossPreservation(GradualPruner, score=by.RunningLossPreservation):
    r"""Drops the weights whose removal changes the loss least, by the running mean of \|θ·g\| (Molchanov et al. 2019).

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> gate = GradualLossPreservation(model, sparsity=0.5, schedule="linear", every=1)
        >>> gate.begin(total_steps=1)
        >>> model(torch.tensor([[1.0, 9.0]])).sum().backward()  # |θ g| is 2 and 9
        >>> gate.observe(lr=0.1)
        >>> gate.advance(1)
        >>> model.weight.tolist()
        [[0.0, -1.0]]
    """


class GradualGrasp(GradualPruner, score=by.Grasp):
    """Drops the weights whose removal raises the norm of the gradient most, by θ·Hg (Lubana and Dick 2021)."""


class GradualGradientNorm(GradualPruner, score=by.GradientNorm):
    """Drops the weights whose removal changes the norm of the gradient least, by |θ·Hg| (Lubana and Dick 2021)."""


class PINS(GradualPruner, score=by.SmoothedImportance):
    """Drops the weights with the lowest smoothed importance, times its uncertainty (Ren and Zhu 2023).

    Departs from the published code, beside what :class:`~trainflat.pruning.scores.SmoothedImportance` says, in that
    pruned weights do not come back, and in what is pruned: there the biases of the layers too and not the pooler, here
    all matrices that are :func:`~trainflat.anatomy.params.prunable` and no biases.

    The paper's self-regularisation, a teacher that is the best checkpoint so far, is not part of the gate, so that
    every method can have it: in ``training.distillation``, beside the fine-tuned ``teacher`` with which the paper
    begins, ``weight: entropy, renew: best``.

    Args:
        model: As for :class:`GradualPruner`.
        sparsity: Share to drop.
        scope: Who competes; published ``"global"``.
        schedule: When the sparsity rises; above 0 only after the first step. Published: cubic.
        every: Optimizer steps between two choices; published: a window, and 1 once the schedule has arrived.
        **options: ``window``, ``beta1`` and ``beta2`` of the score.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> gate = PINS(model, sparsity=0.5, schedule="linear", every=1)
        >>> gate.begin(total_steps=1)
        >>> model(torch.tensor([[1.0, 9.0]])).sum().backward()
        >>> gate.observe(lr=0.1)  # |-2 + 0.1| = 1.9 and |9 + 8.1| = 17.1
        >>> gate.advance(1)
        >>> model.weight.tolist()
        [[0.0, -1.0]]
    """

    sparsity: SparsityOption = 0.9
    scope: ScopeOption = "global"
    schedule: ScheduleOption = "cubic"
    every: Steps = 10
