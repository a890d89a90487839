"""Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv:2010.01412)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.settings import Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import Radius, Whole
from trainflat.optim.perturbation import Perturbation, steepest_ascent

_NORM = Number("is the norm of SAM's ball, a number >= 1", lambda x: x >= 1, infinite=True)
Share = Annotated[float, Number("is a share of the training, from 0 to 1", lambda x: 0 <= x <= 1)]


class Phase(Configurable):
    """Selects each ``every``-th step between two shares of the training.

    Raises:
        InputError: ``every`` is no whole number above 0, or the shares do not lie in order between 0 and 1.

    Example:
        >>> last_third = Phase(every=2, start=0.7)
        >>> [step for step in range(10) if last_third.includes(step, total=10)]
        [8]
    """

    every: Whole = 1
    start: Share = 0.0
    stop: Share = 1.0

    @classmethod
    def resolve(cls, start: float, stop: float, **options: Any) -> Mapping[str, Any]:
        """Raises InputError unless the start comes before the stop."""
        if start >= stop:
            raise InputError(f"start and stop are shares with start < stop, got {start} and {stop}.")
        return {}

    @property
    def share(self) -> float:
        """Returns the share of all steps that are in the phase, up to rounding."""
        return (self.stop - self.start) / self.every

    def includes(self, step: int, total: int | None) -> bool:
        """Returns whether the step, counted from 0, is in the phase.

        Raises:
            InputError: ``start`` or ``stop`` is set, and ``total`` is not known.
        """
        if step % self.every:
            return False
        if (self.start, self.stop) == (0, 1):  # needs no length, so a loop of one's own need not set it
            return True
        if total is None:
            raise InputError(
                "start and stop are shares of the training: set optimizer.total_steps before its first step."
            )
        return self.start * total <= step < self.stop * total

    def check(self, total: int) -> None:
        """Raises InputError if the phase has none of the ``total`` steps of a training."""
        if not any(self.includes(step, total) for step in range(0, total, self.every)):
            options = f"every {self.every}, start {self.start:g}, stop {self.stop:g}"
            raise InputError(f"no step of {total} would be flat ({options}). Train longer, or set a longer phase.")


class SAM(FlatOptimizer):
    r"""Descends with the gradient taken at the steepest point of a ball around the weights.

    With :math:`g = \nabla L(w)`, equation (2) of the paper and the step that follows it::

        e(w) = rho * sign(g) |g|^(q-1) / (||g||_q^q)^(1/p)     1/p + 1/q = 1, norms over all parameters together
             = rho * g / ||g||_2                               for p = 2
        w    = w - lr * grad L(w + e(w))                       or whatever step the base optimizer makes of it

    A gradient that is 0 or not finite (an overflow in float16) perturbs nothing. The direction does not depend on the
    gradient's scale, so a first pass with a scaled loss needs no unscaling. Under data parallel each process perturbs
    by the gradient of its own rows (m-sharpness, section 4.1 of the paper); only the second gradient is averaged.

    Args:
        params, exclude, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        base_optimizer: Class of the optimizer that takes the step. On a CPU :class:`trainflat.optim.AdamW`, or torch's
            with ``fused=True``, is several times faster than torch's default.
        rho: Radius of the ball in the p-norm over all parameters; :math:`\rho` in the paper.
        p: Norm of the ball, from 1 to infinity. At 1 only the entries with the largest gradient are perturbed.
        every: Period of the perturbed steps, from the first on; the others are plain steps of one pass.
        start: Share of the training before which no step is perturbed (last-phase SAM, Zhou et al. 2025,
            arXiv:2410.10373). Needs ``total_steps``, which the Trainer sets.
        stop: Share of the training after which no step is perturbed.

    Example:
        >>> import torch
        >>> model, inputs = torch.nn.Linear(4, 2), torch.ones(8, 4)
        >>> optimizer = SAM(model.parameters(), base_optimizer=torch.optim.AdamW, rho=0.05, lr=1e-3)
        >>> model(inputs).square().mean().backward()
        >>> with optimizer.perturbed():
        ...     optimizer.zero_grad()
        ...     model(inputs).square().mean().backward()
        >>> optimizer.step()
        >>> round(optimizer.last_norm.item(), 4)
        0.05
    """

    rho: Radius = 0.05
    p: Annotated[float, _NORM] = 2.0
    every: Whole = 1
    start: Share = 0.0
    stop: Share = 1.0

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1 + _phase(options).share

    @classmethod
    def resolve(cls, **options: Any) -> Mapping[str, Any]:
        _phase(options)
        return {}

    @cached_property
    def phase(self) -> Phase:
        """Returns the phase in which steps are perturbed."""
        return _phase(vars(self))

    @classmethod
    def check_length(cls, options: Mapping[str, Any], total: int) -> None:
        _phase(options).check(total)

    @property
    def second_pass(self) -> bool:
        return self.phase.includes(self.steps_taken, self.total_steps)

    def perturbation(self) -> Perturbation:
        return steepest_ascent(self.perturbable(), self.p)


def _phase(options: Mapping[str, Any]) -> Phase:
    return Phase(**{key: options[key] for key in ("every", "start", "stop") if key in options})
