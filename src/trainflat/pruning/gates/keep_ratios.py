"""Learned keep ratios: how many of a parameter's scores stay open is learned beside which ones do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainflat.pruning.gates.functions import GateFunction, Position, Scores
from trainflat.pruning.gates.pressure import NEAR, Pressure, Scratch

_WEAKEST, _NEARLY, _FAINT = 50.0, 3e-4, 10.0


class KeepRatio(GateFunction):
    r"""Opens the ``ceil(sigmoid(theta) n)`` highest of n scores, straight through; theta is learned too.

    Each parameter of scores has a theta of its own. What a unit's value m would change the loss by goes to its score,
    and that of all open ones to theta: ``dL/dtheta = sum of dL/dm * m`` (published code of Yao et al. 2021). Of equal
    scores the last in index order are open. Everything is chosen anew in every pass.

    Attributes:
        ratios: theta of each parameter of scores, by its name.
    """

    def __init__(self) -> None:
        self.ratios: dict[str, nn.Parameter] = {}

    def count(self, name: str, size: int) -> int:
        """Returns how many of a parameter's scores are open."""
        return int(torch.ceil(self.ratios[name].detach().double().sigmoid() * size))

    @torch.no_grad()
    def opened(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        """Writes 1 where a score is among the highest and 0 where it is not."""
        highest = score.flatten().argsort(stable=True)[-self.count(name, score.numel()) :]
        out.zero_().view(-1).index_fill_(0, highest, 1)
        return out

    def values(self, name: str, score: Tensor, at: Position, out: Tensor) -> Tensor:
        return self.opened(name, score, out)

    def kept(self, scores: Scores, at: Position) -> Mapping[str, Tensor]:
        return {name: self.opened(name, scores[name], torch.empty_like(scores[name])) > 0 for name in self.ratios}


@dataclass(frozen=True)
class Size:
    """Computes the share of a model's entries that are left from the shares of units that are.

    Attributes:
        parts: Numbers of entries, each with the names of the parameters of scores that they shrink by.
        counts: How many units each parameter of scores is for; of none is less than one left.
    """

    parts: Sequence[tuple[int, tuple[str, ...]]]
    counts: Mapping[str, int]

    def of(self, shares: Mapping[str, Tensor]) -> Tensor:
        """Returns ``sum of entries * product of max(share, 1/n)`` over all entries; differentiable.

        For BERT-base, with a, o, f and g of a layer's heads, attention outputs, units and feed-forward outputs, it is
        the mean over layers of ``(3 a + a o + 4 f + 4 f g) / 12``, as in the published code.
        """
        least = {name: share.clamp_min(1 / self.counts[name]) for name, share in shares.items()}
        terms = [entries * torch.stack([least[name] for name in names]).prod() for entries, names in self.parts]
        return torch.stack(terms).sum() / sum(entries for entries, _ in self.parts)


class RatioPenalty(Pressure):
    r"""Lowers keep ratios until a model is as small as it should be; above that size, by a square that grows with it.

    With R the size that the ratios ``sigmoid(theta)`` come to, t what should be left by now and T in the end::

        penalty = lambda * max(R - t, 0)^2      lambda = max(strength * max(R - t, 0)^2 / (1 - T)^2, 50)

    and lambda 10 where the square is below 3e-4; lambda is a number, without a gradient of its own.

    Args:
        function: Whose ratios are lowered.
        strength: Of the penalty.
        target: Share of the entries to drop in the end.
        size: Of the model.
    """

    def __init__(self, function: KeepRatio, strength: float, target: float, size: Size) -> None:
        super().__init__(function)
        self.keep, self.strength, self.goal, self.size = function, strength, target, size
        self.target = target
        self.begin()

    def begin(self) -> None:
        self._wanted, self._lambda = 1.0, 0.0  # what should be left by now

    def advance(self, scores: Scores, at: Position, scratch: Scratch) -> None:
        self._wanted = 1 - at.scheduled(self.goal)

    @torch.no_grad()
    def push(self, scores: Mapping[str, nn.Parameter], weight: float, scratch: Scratch) -> None:
        thetas = {name: theta.detach().clone().requires_grad_() for name, theta in self.keep.ratios.items()}
        with torch.enable_grad():
            square = (self._expected(thetas) - self._wanted).clamp_min(0) ** 2
            self._lambda = self._weight_of(float(square.detach()))
            pulls = torch.autograd.grad(weight * self._lambda * square, [*thetas.values()])
        for (name, theta), pull in zip(self.keep.ratios.items(), pulls, strict=True):
            slopes = scores[name].grad
            if slopes is not None:
                theta.grad = (
                    slopes * self.keep.opened(name, scores[name], torch.empty_like(scores[name]))
                ).sum() + pull

    def arrived(self, scores: Scores, at: Position) -> bool:
        # Not by what is open: counts are rounded up, so that with few heads it may stay a little above for good.
        return float(self._expected(self.keep.ratios).detach()) <= 1 - self.goal + NEAR

    def logs(self, scores: Scores, at: Position) -> dict[str, float]:
        expected = 1 - float(self._expected(self.keep.ratios).detach())
        return {"sparsity": self._dropped(scores), "expected_sparsity": expected, "penalty": self._lambda}

    def state_dict(self) -> dict[str, Tensor]:
        return {"left": torch.tensor([self._wanted, self._lambda], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Scores) -> None:
        self._wanted, self._lambda = state["left"].tolist()

    def _expected(self, thetas: Mapping[str, Tensor]) -> Tensor:
        return self.size.of({name: theta.sigmoid() for name, theta in thetas.items()})

    def _weight_of(self, square: float) -> float:
        return _FAINT if square < _NEARLY else max(self.strength * square / self.goal**2, _WEAKEST)

    def _dropped(self, scores: Scores) -> float:
        sizes = {name: scores[name].numel() for name in self.keep.ratios}
        shares = {name: torch.tensor(self.keep.count(name, n) / n, dtype=torch.float64) for name, n in sizes.items()}
        return 1 - float(self.size.of(shares))
