"""The l1 penalty, a control of flat training (Na, Mehta and Strubell 2022, arXiv:2205.12694)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch

from trainflat.core.settings import Maybe, Number
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.bases import PATTERNS

_EMBEDDINGS = "embedding"


_PENALTY = Number("is a number >= 0", lambda x: x >= 0)


class L1Penalty(FlatOptimizer):
    """Adds an l1 penalty to the loss: the control for whether SAM is more than implicit sparsity.

    The gradient of ``penalty * sum |w|`` is added to the loss's, for parameters of at least two dimensions except
    embeddings, so for the matrices that pruning takes and the task head's::

        g = grad L(w) + penalty * sign(w)     sign(0) = 0: a pruned weight stays 0

    It is added right before the base optimizer's step, after a scaled loss has been unscaled, so it is not clipped,
    unlike a penalty in the loss. One pass per step; the logged loss is without the penalty.

    Args:
        base_optimizer, **base_options: As for :class:`~trainflat.optim.FlatOptimizer`.
        params: Parameters, parameter groups (with a penalty of their own under ``"rho"`` if wanted; a gate's scores
            have 0) or ``model.named_parameters()``.
        penalty: Loss per unit of the sum of absolute weights.
        exclude: Parameters without penalty: parts of names, or patterns. By default those with ``embedding`` in their
            name, where names are known.

    Raises:
        InputError: for a negative penalty.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, -1.0, 0.0]]))
        >>> optimizer = L1Penalty([weight], torch.optim.SGD, penalty=0.5, lr=0.5)
        >>> weight.grad = torch.zeros_like(weight)
        >>> optimizer.step()
        >>> weight.tolist()
        [[0.75, -0.75, 0.0]]
    """

    rho_only_displaces: ClassVar[bool] = False

    penalty: Annotated[float, _PENALTY] = 1e-5
    exclude: Annotated[Sequence[str] | None, Maybe(PATTERNS)] = None
    rho: float = 0.0  # no option: a group's "rho" is its penalty, because torch saves and restores keys of groups
    radius_option: ClassVar[str] = "penalty"

    @classmethod
    def average_passes(cls, options: Mapping[str, Any]) -> float:
        return 1.0

    @property
    def second_pass(self) -> bool:
        return False

    # Not in combine(), which runs before clipping and, with a GradScaler, before unscaling.
    @torch.no_grad()
    def base_step(self) -> None:
        for penalty, params in self.perturbable():
            for p in params:
                if p.grad is not None and p.dim() >= 2:
                    p.grad.add_(p.sign(), alpha=penalty)
        super().base_step()

    def _prepare(self, group: dict[str, Any]) -> None:
        super()._prepare(group)
        if self.exclude is None:
            named = zip(group.get("param_names", ()), group["params"], strict=False)
            self._excluded |= {p for name, p in named if _EMBEDDINGS in name}
