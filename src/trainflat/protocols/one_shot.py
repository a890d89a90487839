"""One-shot pruning without retraining (Na, Mehta and Strubell 2022, appendix A.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced, check_sparsities, stage_name
from trainflat.protocols.workspace import Workspace, build_pruner, train
from trainflat.pruning import PRUNERS, PrunerSection, Scope

_PAPER = tuple(round(0.05 * k, 2) for k in range(1, 13))


class OneShot(Protocol):
    """Trains once, then prunes that model at each sparsity and evaluates it as it is.

    Args:
        sparsities: Shares of the prunable weights to drop, ascending; the paper's 5 %, 10 % … 60 %.
        pruner: Which weights go: a name, or a mapping ``{"name": "grasp", "rows": 512}`` with the method's options.
        scope: One ranking over all matrices, or one per matrix.
    """

    def __init__(
        self,
        sparsities: Sequence[float] = _PAPER,
        pruner: PrunerSection = "magnitude",
        scope: Scope = "global",
    ) -> None:
        self.sparsities = check_sparsities(sparsities)
        self.pruner, self.scope = PRUNERS.read(pruner), scope

    def plan(self) -> list[Planned]:
        """Lists the trained model and every pruned copy of it."""
        return [
            Planned("dense", 0.0, trained=True),
            *(Planned(stage_name(s), s, trained=False) for s in self.sparsities),
        ]

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        dense, *pruned = self.plan()
        trained = workspace.store.recall(dense) or train(workspace, dense, workspace.untrained())
        yield trained
        masks = None
        for stage in pruned:
            copied = trained.copied(stage)
            masks = build_pruner(workspace, copied.model, self.pruner, stage.sparsity, self.scope, masks).prune()
            yield replace(copied, masks=masks)
