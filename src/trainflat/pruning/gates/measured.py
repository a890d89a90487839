"""Gates that rank by a measure of their own: passes over some training rows, whenever they choose."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.schedules import Schedule
from trainflat.objective import Objective
from trainflat.pruning.base import Scope
from trainflat.pruning.gates.held import HeldGate
from trainflat.pruning.gradient_flow import GradientFlowPruner, check_temperature


class MeasuredGate(HeldGate):
    """Ranks as a one-shot pruner would at this moment; a method names the ``pruner``, and its temperature's default.

    Second derivatives are in no training gradient, so a choice takes passes of its own: a gradient and a product with
    the Hessian over ``rows`` rows, without dropout and without a teacher, about ``4 * rows / batch`` passes of
    training. The rows are the same in all choices and processes, and the model is left as it was, bit for bit.

    Args:
        model: As for :class:`~trainflat.pruning.gates.held.HeldGate`, and so is all but the last three.
        sparsity: Share to drop.
        scope: Who competes.
        schedule: When the sparsity rises.
        every: Optimizer steps between two choices.
        rows: How many training rows; an objective that is given to ``begin`` has its own.
        batch_size: Rows per pass, which only memory depends on.
        temperature: Divides the logits.

    Raises:
        InputError: when training begins, where nobody gives an objective.
    """

    needs_weights: ClassVar[bool] = True

    pruner: ClassVar[type[GradientFlowPruner]]

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.9,
        scope: Scope = "layer",
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        every: int = 100,
        *,
        rows: int = 512,
        batch_size: int = 16,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(model, sparsity, scope, schedule, every)
        self.rows, self.batch_size, self.temperature = rows, batch_size, check_temperature(temperature)
        self._scorer(nn.Linear(1, 1))  # constructors refuse options, of whatever model

    def prepare(self) -> None:
        super().prepare()
        if self.objective is None:
            raise InputError(
                f"{type(self).__name__} scores by the loss, of which it was told nothing. "
                "Give objective=Objective(model, batches), from trainflat.objective, to begin() or to GateCallback."
            )
        given: Objective | Callable[[int, int], Objective] = self.objective
        self.objective = given if isinstance(given, Objective) else given(self.rows, self.batch_size)

    def importance(self) -> Mapping[str, Tensor]:
        return self._scorer(self.model, masks=self._masks, objective=self.objective).scores()

    def _scorer(self, model: nn.Module, **given: Any) -> GradientFlowPruner:
        options: dict[str, Any] = {"rows": self.rows, "batch_size": self.batch_size, "temperature": self.temperature}
        return self.pruner(model, **options, **given)
