"""Gates with scores that are learned: the model computes with ``W * m(S)``."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.schedules import Schedule
from trainflat.pruning.gates.base import Perturb
from trainflat.pruning.gates.swapped import SwappedGate
from trainflat.pruning.gates.units import Unit, expanded, known_unit, unit_shapes
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import NON_NEGATIVE


class ScoredGate(SwappedGate):
    r"""Learns a score S per weight, or per unit of weights, beside the weights W.

    With G the gradient of the loss by ``W * m(S)``, summed over the step and over processes::

        dL/dW = G * m(S)                      so a pruned weight rests
        dL/dS = sum over the unit of (G * W) * m'(S)      also of pruned ones, so a weight can come back

    A method writes :meth:`factor`, :meth:`slope` where it is not 1 (straight through), :meth:`kept`, and a penalty
    in :meth:`penalize` if it has one.

    Departs from the code of Sanh et al. (2020), of which the members are, in that the pooler is gated too, where the
    model has one; in that evaluation sees the sparsity of its step, not the final one throughout; and in that schedules
    count the first step as 0, there as 1.

    Args:
        model: Whose weights are gated.
        schedule: See :class:`~trainflat.pruning.gates.base.Gate`.
        unit: What one score is for: a ``"weight"``, a ``"row"`` or ``"column"`` of a matrix, or a ``"block"`` of 32 by
            32 (Lagunas et al. 2021, arXiv:2109.04838).
        score_lr: Learning rate of the scores; it follows the schedule of the other rates. Scores do not decay, as in
            the published code, and no ``l1`` pulls them: they are no weights.
        perturb: What an optimizer that displaces, such as SAM, displaces: ``"weights"``, all parameters of the model
            and no scores; ``"scores"``, nothing else; ``"both"``, in one ball with a joint norm; ``"none"``, which
            costs a second pass like the others and steps like the base optimizer. The displacement e_W is made of
            ``G * m(S)``, e_S of ``dL/dS``. The second pass computes with ``(W + e_W) * m(S + e_S)``, its
            gradients are pulled back there (``dL/dS = (G * (W + e_W)) * m'(S + e_S)``), and thresholds and random
            numbers are those of the first pass. By default ``"weights"`` where the optimizer displaces.
    """

    learns: ClassVar[bool] = True
    first_score: ClassVar[float] = 0.0

    def __init__(
        self,
        model: nn.Module,
        schedule: str | Mapping[str, Any] | Schedule = "cubic",
        *,
        unit: Unit = "weight",
        score_lr: float = 1e-2,
        perturb: Perturb | None = None,
    ) -> None:
        super().__init__(model, schedule)
        self.unit = known_unit(unit)
        self.score_lr = NON_NEGATIVE.read("score_lr", score_lr)
        if perturb is not None and perturb not in get_args(Perturb):
            raise UnknownName("perturb", str(perturb), get_args(Perturb))
        self.perturb = perturb

    @abstractmethod
    def factor(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        """m(S) in the passes of the coming step; may be written into ``out``, which is of the score's shape and dtype.

        The same for all passes of a step: a draw comes from :meth:`noise`, a threshold is set in ``advance``.
        """

    def slope(self, name: str, score: Tensor, out: Tensor) -> Tensor | None:
        """m'(S) in the passes of the same step; None is 1, a straight-through gradient."""
        return None

    @abstractmethod
    def kept(self) -> Mapping[str, Tensor]:
        """By weight, which scores [of the scores' shape, boolean] would keep theirs if the training ended now."""

    def refuse_unfit(self) -> None:
        super().refuse_unfit()
        unit_shapes(self.weights, self.unit)

    def check_schedule(self, total_steps: int) -> None:
        super().check_schedule(total_steps)
        quantity, value = self.scheduled_quantity
        if quantity == "sparsity" and value and self.schedule.share(0, total_steps) > 0:
            raise InputError(
                f"the schedule wants sparsity {value:g} before the first step, and all scores begin alike. Choose "
                "cubic, or give it a start of at least 1 step."
            )

    def prepare(self) -> None:
        super().prepare()
        shapes = unit_shapes(self.weights, self.unit)
        self._views = {name: view for name, (_, view) in shapes.items()}
        self.scores = {
            name: nn.Parameter(torch.full(shapes[name][0], self.first_score, dtype=w.dtype, device=w.device))
            for name, w in self.weights.items()
        }

    def advance(self, step: int) -> None:
        self.step = step

    def place(self, name: str, weight: Tensor, kept: Tensor) -> None:
        score, view = self.scores[name], self._views[name]
        own = score.shape == weight.shape  # then the factor can be written over the weight
        factor = self.factor(name, score, weight.detach() if own else self.scratch(name, score.shape))
        torch.mul(kept.view(view), factor, out=weight.detach().view(view))

    def pull_back(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        score, view = self.scores[name], self._views[name]
        own = (gradient * weight).view(view).sum_to_size(score.shape)
        slope = self.slope(name, score, self.scratch(name, score.shape))
        own = own if slope is None else own.mul_(slope)
        score.grad = own
        gradient.view(view).mul_(self.factor(name, score, self.scratch(name, score.shape)))

    def masks(self) -> Masks:
        return Masks({name: expanded(kept, self.weights[name], self.unit) for name, kept in self.kept().items()})

    def score_group(self) -> dict[str, Any]:
        displaced = {} if self.perturb in ("scores", "both") else {"rho": 0.0}
        return {"lr": self.score_lr, "weight_decay": 0.0, **displaced}

    def noise(self, name: str) -> Tensor:
        """Uniform numbers in (0, 1) of the score's shape, the same in every pass of a step and on every process."""
        score = self.scores[name]
        digest = hashlib.blake2b(repr((self.seed, self.step, name)).encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        drawn = torch.rand(score.shape, generator=generator).clamp_(1e-6, 1 - 1e-6)
        return drawn.to(score.device, score.dtype)
