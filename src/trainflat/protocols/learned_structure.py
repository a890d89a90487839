"""Structured pruning that is learned while the model trains: a teacher, the pruning, and a last fine-tuning."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from torch import Tensor, nn
from transformers import PreTrainedModel

from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.core.rng import derive_seed
from trainflat.core.settings import Maybe, Number, Section, Settings, Truth, Word, checked
from trainflat.distillation import cut_maps
from trainflat.evaluation.structure import describe_structure
from trainflat.protocols.base import Protocol
from trainflat.protocols.gradual import check_gate, gate_curve
from trainflat.protocols.phases import Phase, PhaseOption
from trainflat.protocols.post_training import LATENCIES, Size
from trainflat.protocols.rates import train_phase
from trainflat.protocols.stages import Planned, Produced, check_sparsities
from trainflat.protocols.teaching import retraining, untaught
from trainflat.protocols.workspace import Workspace, train
from trainflat.pruning.gates import METHODS, ExpectedPrice, final_sparsity
from trainflat.pruning.structured import Budget, Kept, Latency, Parameters, fill_zeros, latency_table, shrink
from trainflat.training.teachers import head_of

Start = Literal["pretrained", "dense"]
_Count = Annotated[int | None, Maybe(Number("is a number of parameters, at least 1", lambda x: x >= 1, whole=True))]
_Speedup = Annotated[float | None, Maybe(Number("is how many times as fast, above 1", lambda x: x > 1))]


class LearnedStructure(Protocol):
    """Learns which heads and units go while the model trains, takes them out, and fine-tunes what is left.

    Stages are ``dense``, the run's own teacher where one is asked for; ``pruned``, trained under the method and shrunk;
    and ``finetuned``, the smaller model trained once more. With ``training.distillation.teacher: dense`` the first
    teaches the others; another teacher teaches all. Without a teacher they learn from labels alone.

    Matrices of a smaller model may still hold zeros, of a method that prunes blocks; they are filled before it is
    trained again (Lagunas et al. 2021).

    Args:
        method: The gate that decides what goes; see ``docs/learned-structure.md``.
        parameters: Those of the whole model that may be left, in place of the method's target; or
        speedup: How many times as fast a pass shall be, by a table of this machine's times at each width.
        batch: Rows of the pass that is timed.
        length: Tokens per row of that pass.
        start: Weights that pruning begins from: the pre-trained ones, as CoFi does, or those of ``dense``.
        freeze_embeddings: Leaves the embeddings as they are after ``dense``, as CoFi does.
        dense: How the run's own teacher is trained otherwise than the recipe's ``training`` says; None trains none.
        finetune: Likewise for the smaller model; None leaves it as it was shrunk.
    """

    unstructured = False

    @checked
    def __init__(
        self,
        method: Annotated[Section, METHODS] = "cofi",
        *,
        start: Annotated[Start, Word(get_args(Start))] = "pretrained",
        freeze_embeddings: Annotated[bool, Truth()] = True,
        dense: Annotated[Phase | None, PhaseOption()] = None,
        finetune: Annotated[Phase | None, PhaseOption()] = None,
        parameters: _Count = None,
        speedup: _Speedup = None,
        batch: Size = 1,
        length: Size = 128,
    ) -> None:
        self.method: Settings = METHODS.read(method)
        self.start, self.freeze_embeddings, self.dense, self.finetune = start, freeze_embeddings, dense, finetune
        self.parameters, self.speedup, self.batch, self.length = parameters, speedup, batch, length
        self.teaches = dense is not None
        self._check_budget()
        self.sparsity = None if self.priced else final_sparsity(self.method)
        if self.sparsity is not None:
            check_sparsities([self.sparsity])
        if start == "dense" and dense is None:
            raise InputError("start dense begins from the run's own teacher, and dense is null. Set dense to {}.")

    @property
    def priced(self) -> bool:
        """Returns whether a budget takes the place of the method's target."""
        return self.parameters is not None or self.speedup is not None

    def _check_budget(self) -> None:
        if not self.priced:
            return
        if self.parameters is not None and self.speedup is not None:
            raise InputError("parameters and speedup both say how much is left. Give one of the two.")
        if "budget" not in self.method.options:
            raise InputError(
                f"parameters and speedup are for cofi; {self.method.name} has a target of its own. Use that."
            )
        if self.method.hidden:
            raise InputError(
                "parameters and speedup price heads and units of the whole hidden size. Set method.hidden to false."
            )

    def _budget(self, workspace: Workspace) -> Budget | None:
        if self.parameters is not None:
            return Parameters(count=self.parameters)
        if self.speedup is None:
            return None
        path, model = workspace.folder / LATENCIES, workspace.encoder.model
        table = latency_table(path, model, self.batch, self.length, progress=workspace.progress)
        return Latency(table, speedup=self.speedup)

    def files(self) -> list[str]:
        """Lists the table of times, which a resumed run goes on with."""
        return [LATENCIES] if self.speedup is not None else []

    def plan(self) -> list[Planned]:
        """Lists the teacher, the model that was pruned, and the one that was trained once more."""
        pruned = Planned("pruned", self.sparsity or 0.0, trained=True, open=self.sparsity is None)
        stages = [] if self.dense is None else [Planned("dense", 0.0, trained=True, phase=self.dense)]
        if self.finetune is None:
            return [*stages, pruned]
        return [*stages, replace(pruned, handed_on=True), replace(pruned, name="finetuned", phase=self.finetune)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """Checks that the method fits the model and the steps, and that rates can be compared on training rows."""
        budget = None if self.parameters is None else Parameters(count=self.parameters)
        check_gate(self._priced(budget), steps, model)
        if model is not None:
            anatomy_of(model)  # some methods train any model, and only known ones become smaller
        phases = [phase for phase in (self.dense, self.finetune) if phase is not None]
        if model is not None and any(phase.several for phase in phases) and head_of(model).kind == "spans":
            raise InputError(
                "several learning rates are compared by the score on held-out training rows, and answers of training "
                "rows are not scored. Give one rate."
            )

    def curve(self, steps: int) -> tuple[str, list[tuple[int, float]]] | None:
        return None if self.priced else gate_curve(self.method, steps)

    def stage_files(self, stage: Planned) -> list[str]:
        return [] if stage.name == "dense" else super().stage_files(stage)

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        """Trains the teacher, prunes and shrinks a second model, and fine-tunes it."""
        self.check(workspace.steps, workspace.encoder.model)
        stages, store = {stage.name: stage for stage in self.plan()}, workspace.store
        start = workspace.untrained()
        if self.dense is not None:
            stage = stages["dense"]
            dense = store.recall(stage) or train_phase(untaught(workspace), stage, workspace.untrained(), self.dense)
            yield dense
            workspace = retraining(workspace, dense)
            start = copy.deepcopy(dense.model) if self.start == "dense" else start
        pruned = store.recall(stages["pruned"]) or self._pruned(workspace, stages["pruned"], start)
        yield pruned
        if self.finetune is not None:
            stage = stages["finetuned"]
            yield store.recall(stage) or self._finetuned(workspace, stage, pruned, self.finetune)

    def _priced(self, budget: Budget | None) -> Settings:
        return self.method if budget is None else self.method.model_copy(update={"budget": budget})

    def _pruned(self, workspace: Workspace, stage: Planned, model: PreTrainedModel) -> Produced:
        budget = self._budget(workspace)
        joining: dict[str, Any] = {"gate": self._priced(budget), "freeze_embeddings": self.freeze_embeddings}
        trained = train(workspace, stage, model, **joining)
        kept: Kept = trained.products["gate"]
        small = shrink(model, kept)
        structure = describe_structure(model, small, kept, self.method.name, "none")
        maps: Mapping[str, Tensor] | None = trained.products.get("layerwise")
        maps = cut_maps(maps, kept.hidden) if maps and stage.handed_on else None
        seconds = ExpectedPrice(model, budget, hidden=False).price(kept) if isinstance(budget, Latency) else None
        made = replace(trained, model=small, masks=None, structure=structure, predicted_seconds=seconds)
        return replace(made, maps=maps, products={})

    def _finetuned(self, workspace: Workspace, stage: Planned, pruned: Produced, phase: Phase) -> Produced:
        model = copy.deepcopy(pruned.model)
        fill_zeros(model, derive_seed(workspace.seed, "filled zeros"))
        joining: dict[str, Any] = {"freeze_embeddings": self.freeze_embeddings}
        layerwise = workspace.options.features().get("layerwise")
        if layerwise is not None and pruned.maps is not None:
            joining["layerwise"] = layerwise.model_copy(update={"start": pruned.maps})
        trained = train_phase(workspace, stage, model, phase, **joining)
        return replace(trained, structure=pruned.structure, products={})
