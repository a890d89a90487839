"""Iterative pruning with or without rewinding (Frankle and Carbin 2019; Chen et al. 2020; Na et al. 2022)."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.files import MANIFEST
from trainflat.core.formatting import plural
from trainflat.protocols.base import Planned, Produced, Protocol, stage_name
from trainflat.protocols.bench import REWIND, Bench, check_sparsities
from trainflat.pruning import PRUNERS, Masks, PrunerSection, Scope
from trainflat.training.fit_callbacks import SNAPSHOT

_PAPER = tuple(round(0.1 * k, 1) for k in range(1, 10))


class Iterative(Protocol):
    """Trains dense, then again and again prunes the weights that training made least, rewinds the rest and trains them.

    Every sparsity counts the original prunable weights, so steps of 0.1 prune an absolute 10 % per round, as
    published. The learning rate schedule starts anew in every round; in the published code of Chen et al. it spans all
    rounds.

    Args:
        sparsities: Ascending; the paper's 10 %, 20 % … 90 %.
        pruner: Which weights go: a name, or a mapping ``{"name": "grasp", "rows": 512}`` with the method's options.
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
        pruner: PrunerSection = "magnitude",
        scope: Scope = "global",
        rewind: int | Literal["none"] = 0,
        head: Literal["reset", "keep"] | None = None,
    ) -> None:
        self.sparsities = check_sparsities(sparsities)
        self.pruner, self.scope = PRUNERS.read(pruner), scope
        if rewind != "none" and rewind < 0:
            raise InputError(f"protocol.rewind is a step of the dense training or none, got {rewind}.")
        self.rewind = rewind
        self.head = head or ("keep" if rewind == "none" else "reset")

    def plan(self) -> list[Planned]:
        """The dense model, then one round per sparsity."""
        return [Planned(stage_name(s), s, trained=True) for s in (0.0, *self.sparsities)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """The step to rewind to is one of the dense training."""
        if steps is not None and self.rewind != "none" and self.rewind > steps:
            raise InputError(
                f"protocol.rewind {self.rewind} lies beyond the {plural(steps, 'step')} of the dense training. "
                f"Choose 0 to {steps}."
            )

    def files(self) -> list[str]:
        """The weights of the step that is rewound to."""
        return [] if self._snapshot is None else [f"{REWIND}/{SNAPSHOT}", f"{REWIND}/{MANIFEST}"]

    def settled(self) -> dict[str, Any]:
        """What becomes of the head."""
        return {"head": self.head}

    def run(self, bench: Bench) -> Iterator[Produced]:
        """Trains round after round."""
        self.check(bench.steps, bench.model)
        dense, *rounds = self.plan()
        yield bench.train(dense, start=bench.initial, snapshot=self._snapshot)
        masks: Masks | None = None
        for stage in rounds:
            masks = bench.recall_masks(stage) or self._select(bench, stage, masks)
            yield bench.train(stage, start=self._start(bench), masks=masks)

    def _select(self, bench: Bench, stage: Planned, masks: Masks | None) -> Masks:
        """Ranks the weights that the round before trained."""
        return bench.pruner(self.pruner, stage.sparsity, self.scope, masks).select()

    @property
    def _snapshot(self) -> int | None:
        return None if self.rewind in ("none", 0) else int(self.rewind)

    def _start(self, bench: Bench) -> dict[str, Tensor]:
        trained = bench.state()
        origin = bench.initial if self._snapshot is None else bench.snapshot()
        start = trained if self.rewind == "none" else origin
        head = trained if self.head == "keep" else origin
        return {name: (head if name in bench.head_names else start)[name] for name in start}
