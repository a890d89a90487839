"""``Top_v(S)``, chosen now and kept as a threshold for some steps."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainflat.pruning.cut import find_cut, pack_kept
from trainflat.pruning.keys import Keys
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import Scope


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
