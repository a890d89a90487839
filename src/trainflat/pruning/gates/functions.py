"""Gate functions: from learned parameters to the values of a mask, with their slopes in closed form."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainflat.pruning.choice import keep_highest
from trainflat.pruning.gates.selection import Selection, floor_of, highest
from trainflat.pruning.options import Scope

Scores = Mapping[str, Tensor]


@dataclass(frozen=True)
class Position:
    """Holds the position in a training.

    Attributes:
        step: Optimizer steps taken.
        share: How far the schedule is on its way, in [0, 1].
        seed: Of the run.
    """

    step: int
    share: float
    seed: int

    def scheduled(self, last: float) -> float:
        """Returns what a quantity that rises from 0 to ``last`` is now; at the end exactly ``last``."""
        return last if self.share == 1 else last * self.share


def generator_for(*key: object) -> torch.Generator:
    """Returns a generator that is the same for one key on every process."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class GateFunction(ABC):
    """Gives m(S), the values of a mask, and m'(S).

    Both are the same in all passes of a step: what is drawn depends on seed, step and name alone, and what is chosen is
    chosen in :meth:`refresh`.

    Attributes:
        first_score: What the parameters S start at.
        shift: The chance that a value is not 0 is ``sigmoid(S - shift)``; what a penalty lowers.
        target: The sparsity that it ends with by itself, if it sets one.
    """

    first_score: float = 0.0
    shift: float = 0.0
    target: float | None = None

    @abstractmethod
    def values(self, name: str, score: Tensor, at: Position, out: Tensor) -> Tensor:
        """Returns m(S), maybe in ``out``, which is like S."""

    def slope(self, name: str, score: Tensor, at: Position) -> Tensor | None:
        """Returns m'(S); None is 1, a straight-through gradient."""
        return None

    def final(self, score: Tensor) -> Tensor | None:
        """Returns what the units that stay are multiplied with for good; None is 1."""
        return None

    def cut(self, at: Position) -> float:
        """Returns the score up to which units are dropped."""
        return -math.inf

    def refresh(self, scores: Scores, at: Position) -> None:
        """Chooses, after an optimizer step, what holds until the next choice."""

    @torch.no_grad()
    def dropped(self, scores: Scores, at: Position) -> float:
        """Returns the share of the units that would be dropped if the training ended now."""
        cut = self.cut(at)
        gone = sum(int(torch.count_nonzero(score <= cut)) for score in scores.values())
        return gone / sum(score.numel() for score in scores.values())

    def kept(self, scores: Scores, at: Position) -> Mapping[str, Tensor]:
        """Returns booleans like S: which units would stay if the training ended now."""
        cut = self.cut(at)
        return {name: score.detach() > cut for name, score in scores.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what a resumed run needs, for safetensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        """Goes on from what :meth:`state_dict` returned."""


class TopK(GateFunction):
    """Opens the highest scores, straight through: ``m(S) = Top_v(S)``; the schedule lowers the share v.

    Args:
        sparsity: Share of the units to drop in the end.
        scope: ``"layer"`` ranks each parameter on its own, ``"global"`` all scores together.
        refresh: Optimizer steps for which a threshold is kept; what training ends with is always chosen exactly.
    """

    def __init__(self, sparsity: float, scope: Scope = "layer", refresh: int = 1) -> None:
        self.target: float = sparsity
        self.scope, self.every = scope, refresh
        self._selection = Selection()

    def refresh(self, scores: Scores, at: Position) -> None:
        if at.step % self.every == 0:
            self._selection.refresh(scores, at.scheduled(self.target), self.scope)

    def values(self, name: str, score: Tensor, at: Position, out: Tensor) -> Tensor:
        return self._selection.write(name, score, out)

    def dropped(self, scores: Scores, at: Position) -> float:
        return at.scheduled(self.target)

    def kept(self, scores: Scores, at: Position) -> Mapping[str, Tensor]:
        return keep_highest(scores, at.scheduled(self.target), self.scope)

    def state_dict(self) -> dict[str, Tensor]:
        return self._selection.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        self._selection.load_state_dict(state, scores)


class Threshold(GateFunction):
    """Opens the scores above a threshold, straight through: ``m(S) = sigmoid(S) > tau``.

    Args:
        tau: In (0, 0.5), so that nothing is dropped at first.
        rises: Whether tau rises from 0 by the schedule.
    """

    def __init__(self, tau: float, rises: bool = False) -> None:
        self.tau, self.rises = tau, rises

    def cut(self, at: Position) -> float:
        tau = self.tau * (at.share if self.rises else 1.0)
        return math.log(tau / (1 - tau)) if tau else -math.inf

    def values(self, name: str, score: Tensor, at: Position, out: Tensor) -> Tensor:
        # A comparison that writes numbers: products of numbers and booleans take twice as long.
        return torch.gt(score, self.cut(at), out=out)


class FlooredThreshold(Threshold):
    """Opens the scores above a threshold, and of each parameter's n scores the ``int(0.005 n) + 1`` highest at least.

    So a penalty cannot empty a matrix (published code of Lagunas et al. 2021). Departs where scores are equal: there
    those above the highest that is dropped stay, which may be none; here the last of them in index order do.
    """

    def __init__(self, tau: float, rises: bool = False) -> None:
        super().__init__(tau, rises)
        self._highest: dict[str, Tensor] = {}

    def refresh(self, scores: Scores, at: Position) -> None:
        self._highest = self._rescued(scores, at)

    def values(self, name: str, score: Tensor, at: Position, out: Tensor) -> Tensor:
        values = super().values(name, score, at, out)
        return values.masked_fill_(self._highest[name], 1) if name in self._highest else values

    def dropped(self, scores: Scores, at: Position) -> float:
        kept = sum(int(torch.count_nonzero(mask)) for mask in self.kept(scores, at).values())
        return 1 - kept / sum(score.numel() for score in scores.values())

    def kept(self, scores: Scores, at: Position) -> Mapping[str, Tensor]:
        rescued = self._rescued(scores, at)
        return {
            name: mask | rescued[name] if name in rescued else mask for name, mask in super().kept(scores, at).items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {f"highest.{name}": mask for name, mask in self._highest.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        stored = {name: state.get(f"highest.{name}") for name in scores}
        self._highest = {name: mask.to(scores[name].device) for name, mask in stored.items() if mask is not None}

    @torch.no_grad()
    def _rescued(self, scores: Scores, at: Position) -> dict[str, Tensor]:
        """Returns the highest scores of each parameter that would have fewer left than it must."""
        cut = self.cut(at)
        few = [s for s in scores if int(torch.count_nonzero(scores[s] > cut)) < floor_of(scores[s].numel())]
        return {name: highest(scores[name]) for name in few}


class HardConcrete(GateFunction):
    r"""Draws a value in [0, 1] for each unit at each step (Louizos, Welling and Kingma, ICLR 2018, arXiv:1712.01312).

    With S the paper's :math:`\log\alpha` and u uniform in (0, 1), equations (10) and (11)::

        s = sigmoid((log u - log(1 - u) + S) / beta)        beta = 2/3
        z = clip(s * (zeta - gamma) + gamma, 0, 1)          gamma = -0.1, zeta = 1.1

    The chance that a value is not 0 is ``P(z > 0) = sigmoid(S - beta * log(-gamma / zeta))``. What is evaluated, and
    what training ends with, is ``clip(sigmoid(S) * (zeta - gamma) + gamma, 0, 1)``, equation (13). Draws are the same
    in all passes of a step and on all processes, and at least 1e-6 away from 0 and 1; 1e-4 in the code of Sanh et al.
    (2020).
    """

    low, high, temperature = -0.1, 1.1, 2 / 3
    shift = temperature * math.log(-low / high)

    def __init__(self, first_score: float) -> None:
        self.first_score = first_score

    def cut(self, at: Position) -> float:
        return math.log(-self.low / self.high)  # where the deterministic value becomes 0

    def values(self, name: str, score: Tensor, at: Position, out: Tensor) -> Tensor:
        return self._stretched(self._concrete(name, score, at)).clamp_(0, 1)

    def slope(self, name: str, score: Tensor, at: Position) -> Tensor:
        s = self._concrete(name, score, at)
        stretched = self._stretched(s)
        inside = (stretched > 0) & (stretched < 1)
        return s.mul_(1 - s).mul_((self.high - self.low) / self.temperature).mul_(inside)

    def final(self, score: Tensor) -> Tensor:
        return self._stretched(score.detach().sigmoid()).clamp_(0, 1)

    def noise(self, name: str, score: Tensor, at: Position) -> Tensor:
        """Returns uniform numbers in (0, 1) like S, the same in every pass of a step and on every process."""
        drawn = torch.rand(score.shape, generator=generator_for(at.seed, at.step, name)).clamp_(1e-6, 1 - 1e-6)
        return drawn.to(score.device, score.dtype)

    def _concrete(self, name: str, score: Tensor, at: Position) -> Tensor:
        return self.noise(name, score, at).logit_().add_(score).div_(self.temperature).sigmoid_()

    def _stretched(self, s: Tensor) -> Tensor:
        return torch.mul(s, self.high - self.low).add_(self.low)
