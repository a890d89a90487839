"""Iterative pruning with or without rewinding (Frankle and Carbin 2019; Chen et al. 2020; Na et al. 2022)."""

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from trainflat.errors import InputError
from trainflat.protocols.base import Planned, Produced, Protocol, stage_name
from trainflat.protocols.bench import Bench, check_sparsities
from trainflat.pruning import PRUNERS, Masks, Scope

_PAPER = tuple(round(0.1 * k, 1) for k in range(1, 10))


class Iterative(Protocol):
    """Trains dense, then again and again prunes the weights that training made least, rewinds the rest and trains them.

    Every sparsity counts the original prunable weights, so steps of 0.1 prune an absolute 10 % per round, as
    published. The learning rate schedule starts anew in every round; in the published code of Chen et al. it spans all
    rounds.

    Args:
        sparsities: Ascending; the paper's 10 %, 20 % … 90 %.
        pruner: Which weights go.
        scope: One ranking over all matrices, or one per matrix.
        rewind: The step of the dense training to whose weights the survivors go back: 0 is the pre-trained model
            (IMP, lottery tickets), k the weights after k optimizer steps, "none" continues from the trained
            weights (standard pruning).
        head: "reset": the task head goes back with the encoder, at step 0 to its seeded initial values; "keep": it
        stays as trained.
            By default it is reset where there is a rewind. (The published code never rewinds it.)
    """

    def __init__(
        self,
        sparsities: Sequence[float] = _PAPER,
        pruner: str = "magnitude",
        scope: Scope = "global",
        rewind: int | Literal["none"] = 0,
        head: Literal["reset", "keep"] | None = None,
    ) -> None:
        self.sparsities = check_sparsities(sparsities)
        self.pruner, self.scope = PRUNERS[pruner], scope
        if rewind != "none" and rewind < 0:
            raise InputError(f"protocol.rewind is a step of the dense training or none, got {rewind}.")
        self.rewind = rewind
        self.head = head or ("keep" if rewind == "none" else "reset")

    def plan(self) -> list[Planned]:
        """The dense model, then one round per sparsity."""
        return [Planned(stage_name(s), s, trained=True) for s in (0.0, *self.sparsities)]

    def run(self, bench: Bench) -> Iterator[Produced]:
        """Trains round after round."""
        dense, *rounds = self.plan()
        yield bench.train(dense, start=bench.initial, snapshot=self._snapshot(bench))
        masks: Masks | None = None
        for stage in rounds:
            masks = bench.recall_masks(stage) or self._select(bench, stage, masks)
            yield bench.train(stage, start=self._start(bench), masks=masks)

    def _select(self, bench: Bench, stage: Planned, masks: Masks | None) -> Masks:
        """Ranks the weights that the round before trained."""
        return self.pruner(
            bench.model, sparsity=stage.sparsity, scope=self.scope, masks=masks, seed=bench.seed
        ).select()

    def _snapshot(self, bench: Bench) -> int | None:
        if self.rewind in ("none", 0):
            return None
        steps = bench.steps
        if int(self.rewind) > steps:
            raise InputError(
                f"protocol.rewind {self.rewind} lies beyond the {steps} steps of the dense training. "
                f"Choose 0 to {steps}."
            )
        return int(self.rewind)

    def _start(self, bench: Bench) -> dict[str, Tensor]:
        trained = bench.state()
        start = trained if self.rewind == "none" else bench.snapshot() if self.rewind else bench.initial
        head = trained if self.head == "keep" else bench.snapshot() if self.rewind not in ("none", 0) else bench.initial
        return {name: (head if name in bench.head_names else start)[name] for name in start}
