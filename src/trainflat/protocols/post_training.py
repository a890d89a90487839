"""Structured pruning without training: smaller models from one that has learned the task already."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from trainflat.core.registry import Section
from trainflat.core.settings import Number, Settings, checked
from trainflat.evaluation.structure import describe_structure
from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced, check_sparsities, stage_name
from trainflat.protocols.workspace import Workspace
from trainflat.pruning.options import RowCount
from trainflat.pruning.structured import prune_structure, shrink
from trainflat.pruning.structured.budgets import Budget, Latency, MultiplyAdds, Parameters
from trainflat.pruning.structured.latency import latency_table
from trainflat.pruning.structured.repairs import REPAIRS
from trainflat.pruning.structured.unit_scores import UNIT_SCORES, RankedOnce
from trainflat.pruning.structured.widths import Shape
from trainflat.records.structure import Repaired

BudgetOf = Literal["multiply-adds", "parameters", "latency"]
LATENCIES = "latency.json"  # times of sub-layers on this machine, in the run's folder
Size = Annotated[int, Number("is a whole number, at least 1", lambda x: x >= 1, whole=True)]
ScoreSection = Annotated[Section, UNIT_SCORES]
RepairSection = Annotated[Section, REPAIRS]


@dataclass(frozen=True)
class Shrinking:
    """Holds how one model's structure is pruned, but for how far."""

    score: Settings
    repair: Settings
    shape: Shape
    rows: int

    @cached_property
    def ranked(self) -> RankedOnce:
        """Ranks the units of the one dense model once, for all sizes."""
        return RankedOnce(self.score.build())

    def smaller(self, workspace: Workspace, dense: Produced, stage: Planned, budget: Budget) -> Produced:
        """Prunes and shrinks a stage's model; the rows of a run are the same for all of its stages."""
        model = dense.model
        batches = workspace.objective(model, "pruning rows", self.rows).batches
        pruned = prune_structure(
            model,
            batches,
            budget,
            score=self.ranked,
            repair=self.repair.build(),
            shape=self.shape,
            seed=workspace.seed,
            progress=workspace.progress,
        )
        small = shrink(pruned.model, pruned.kept)
        structure = describe_structure(model, small, pruned.kept, self.score.name, self.repair.name)
        repairs = [Repaired(sub_layer=n.name, repair=n.repair, before=n.before, after=n.after) for n in pruned.notes]
        structure = structure.model_copy(update={"repairs": repairs, "predicted_loss": pruned.predicted})
        seconds = pruned.cost if isinstance(budget, Latency) else None
        return Produced(stage, small, structure=structure, predicted_seconds=seconds)


class PostTraining(Protocol):
    """Prunes heads and feed-forward units of a fine-tuned model at several sizes, and trains nothing.

    Args:
        sparsities: Shares to remove, ascending.
        budget: What the shares are of: the layers' multiply-adds, their parameters, or the time of a pass on this
            machine.
        pruner: Which units go: the name of a score of units, or a mapping with its options.
        repair: How the matrices that read the units make up for those that are gone.
        shape: ``"friendly"`` keeps feed-forward units in multiples of 32, ``"ragged"`` any number.
        rows: Training rows that are looked at; labels only by the scores that need them.
        batch: Rows of the pass that is timed where shares are of latency.
        length: Tokens per row of that pass, and of those whose multiply-adds are counted.
    """

    unstructured = False
    fine_tuned = True

    @checked
    def __init__(
        self,
        sparsities: Sequence[float] = (0.25, 0.4, 0.6),
        *,
        budget: BudgetOf = "multiply-adds",
        pruner: ScoreSection = "obs",
        repair: RepairSection = "least-squares",
        shape: Shape = "friendly",
        rows: RowCount = 512,
        batch: Size = 1,
        length: Size = 128,
    ) -> None:
        self.sparsities, self.budget = check_sparsities(sparsities), budget
        self.pruner, self.repair = UNIT_SCORES.read(pruner), REPAIRS.read(repair)
        self.shrinking = Shrinking(self.pruner, self.repair, shape, rows)
        self.shape, self.rows, self.batch, self.length = shape, rows, batch, length

    def plan(self) -> list[Planned]:
        """Lists the model as it is given, and every smaller one."""
        return [Planned("dense", 0.0, trained=False), *self._smaller(trained=False)]

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        """Prunes each smaller model from the given one."""
        first, *stages = self.plan()
        dense = workspace.store.recall(first) or Produced(first, workspace.untrained())
        yield dense
        for stage in stages:
            yield workspace.store.recall(stage) or self.smaller(workspace, dense, stage)

    def _smaller(self, *, trained: bool) -> list[Planned]:
        return [Planned(stage_name(share), share, trained=trained) for share in self.sparsities]

    def files(self) -> list[str]:
        """Lists the table of times, which a resumed run goes on with."""
        return [LATENCIES] if self.budget == "latency" else []

    def smaller(self, workspace: Workspace, dense: Produced, stage: Planned) -> Produced:
        """Prunes and shrinks a copy of the dense model by the stage's share."""
        return self.shrinking.smaller(workspace, dense, stage, self._budget(workspace, dense, stage))

    def _budget(self, workspace: Workspace, dense: Produced, stage: Planned) -> Budget:
        left = 1 - stage.sparsity
        if self.budget == "parameters":
            return Parameters(share=left)
        if self.budget == "multiply-adds":
            return MultiplyAdds(share=left, length=self.length)
        path = workspace.folder / LATENCIES
        table = latency_table(path, dense.model, self.batch, self.length, progress=workspace.progress)
        return Latency(table, speedup=1 / left)
