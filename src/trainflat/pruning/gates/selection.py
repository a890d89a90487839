"""``Top_v(S)``, chosen now and kept as a threshold for some steps."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.pruning.cut import find_cut, pack_kept
from trainflat.pruning.keys import Keys
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import Scope

FLOOR = 0.005


class Selection:
    """Which scores are among the highest; exactly the share that was asked for when it was refreshed.

    Between two refreshes the scores move and the threshold stays, so that the share is nearly right. Scores at the
    threshold itself stay as they were chosen: the first in index order dropped.
    """

    def __init__(self) -> None:
        self._cut: dict[str, float] = {}  # scores above it are kept; none for a matrix that is kept whole
        self._ties: dict[str, Masks] = {}  # who was kept, where equal scores fell on both sides

    @torch.no_grad()
    def refresh(self, scores: Mapping[str, Tensor], sparsity: float, scope: Scope) -> None:
        """Chooses anew as :func:`~trainflat.pruning.choice.keep_highest` does, by selection and not by sorting."""
        self._cut, self._ties = {}, {}
        for together in [dict(scores)] if scope == "global" else [{name: score} for name, score in scores.items()]:
            keys = Keys(together)
            drop = round(sparsity * keys.count)
            if not drop:
                continue
            cut = find_cut(keys, drop)
            self._cut |= dict.fromkeys(together, keys.value(cut.threshold))
            if cut.ties < sum(cut.tied):
                kept = pack_kept(keys, cut)
                shapes = {name: tuple(score.shape) for name, score in together.items()}
                self._ties |= {name: Masks.of_packed({name: kept[name]}, {name: shapes[name]}) for name in together}

    @torch.no_grad()
    def write(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        """Writes 1 where a score is kept and 0 where it is dropped."""
        if name not in self._cut:
            return out.fill_(1)
        # A comparison that writes numbers: products of numbers and booleans take twice as long.
        torch.gt(score, self._cut[name], out=out)
        if name in self._ties:
            out.add_((score == self._cut[name]) & self._ties[name][name].to(score.device))
        return out

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the choice, for safetensors."""
        cuts = {f"threshold.{name}": torch.tensor(cut, dtype=torch.float64) for name, cut in self._cut.items()}
        return cuts | {f"tied.{name}": masks[name] for name, masks in self._ties.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
        """Goes on from what :meth:`state_dict` returned."""
        self._cut = {name: float(state[f"threshold.{name}"]) for name in scores if f"threshold.{name}" in state}
        self._ties = {name: Masks({name: state[f"tied.{name}"].cpu()}) for name in scores if f"tied.{name}" in state}


class SizedSelection:
    """The highest scores of units of different sizes: of all of them the lowest go, until a share of the entries has.

    Drops less than that share, by less than one unit. Of each parameter's n scores the ``int(0.005 n) + 1`` highest
    stay. Of equal scores the first in index order go. What was chosen stays chosen, also of scores that moved.

    Args:
        sizes: Entries of each unit, like the scores, by name.
    """

    def __init__(self, sizes: Mapping[str, Tensor]) -> None:
        self.sizes = sizes
        self._kept: dict[str, Tensor] = {}

    def refresh(self, scores: Mapping[str, Tensor], sparsity: float, scope: Scope) -> None:
        """Chooses anew."""
        self._kept = self.choose(scores, sparsity)

    @torch.no_grad()
    def choose(self, scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        """Returns booleans like the scores."""
        flat = torch.cat([score.flatten() for score in scores.values()])
        safe = torch.cat([highest(score).flatten() for score in scores.values()])
        sizes = torch.cat([self.sizes[name].flatten() for name in scores]).to(flat.device)
        order = flat.argsort(stable=True)
        order = order[~safe[order]]
        gone = order[sizes[order].cumsum(0) <= sparsity * sizes.sum()]
        kept = torch.ones_like(safe).index_fill_(0, gone, False)
        parts = torch.split(kept, [score.numel() for score in scores.values()])
        return {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)}

    def write(self, name: str, score: Tensor, out: Tensor) -> Tensor:
        """Writes 1 where a score is kept and 0 where it is dropped."""
        return out.copy_(self._kept[name]) if name in self._kept else out.fill_(1)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the choice, for safetensors."""
        return {f"chosen.{name}": kept for name, kept in self._kept.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
        """Goes on from what :meth:`state_dict` returned."""
        stored = {name: state.get(f"chosen.{name}") for name in scores}
        self._kept = {name: kept.to(scores[name].device) for name, kept in stored.items() if kept is not None}


def floor_of(count: int) -> int:
    """Returns how many of a parameter's scores are kept in any case (published code of Lagunas et al. 2021)."""
    return int(FLOOR * count) + 1


@torch.no_grad()
def highest(score: Tensor) -> Tensor:
    """Returns where these scores are; of equal ones the last in index order are kept."""
    last = score.flatten().argsort(stable=True)[-floor_of(score.numel()) :]
    return torch.zeros_like(score, dtype=torch.bool).view(-1).index_fill_(0, last, True).view_as(score)


def dropped_share(kept: Mapping[str, Tensor], sizes: Mapping[str, Tensor]) -> float:
    """Returns the share of the entries whose units are not kept."""
    return 1 - sum(float(sizes[name][mask.cpu()].sum()) for name, mask in kept.items()) / total_size(sizes)


def total_size(sizes: Mapping[str, Tensor]) -> float:
    """Returns the number of all entries."""
    return sum(float(one.sum()) for one in sizes.values())
