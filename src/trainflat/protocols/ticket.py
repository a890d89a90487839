"""Training under a given mask: structure or optimization? (Na, Mehta and Strubell 2022, sections 3.4.2 and 3.4.3)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from torch import nn

from trainflat.anatomy import kind_by_name
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced, check_sparsities, stage_name
from trainflat.protocols.store import masks_of_run
from trainflat.protocols.workspace import Workspace, train
from trainflat.pruning import PRUNERS, Masks, shuffled_within_layers


class Ticket(Protocol):
    """Trains the pre-trained weights under a mask that another run found, or a control of it.

    Args:
        sparsity: Of the ticket.
        run: Folder of the run that found it; it may have learned another task (transfer) with another optimizer. Only
            the pooler may be on one side alone, since models for spans have none: one that the run's model lacked is
            kept whole, one that this model lacks is left out.
        structure: "found": the mask of that run; "layer-shuffled": as many weights per matrix, at random places;
            "random": any weights, needs no run.
    """

    def __init__(
        self,
        sparsity: float,
        run: Path | None = None,
        structure: Literal["found", "layer-shuffled", "random"] = "found",
    ) -> None:
        [self.sparsity] = check_sparsities([sparsity])
        if structure != "random" and run is None:
            raise InputError(
                f"protocol.run is missing: a {structure} ticket needs the folder of the run that found it."
            )
        if structure == "random" and run is not None:
            raise InputError(
                "protocol.run is not read for a random ticket. Drop it, or choose structure: found or layer-shuffled."
            )
        self.source, self.structure = run, structure

    def plan(self) -> list[Planned]:
        return [Planned(stage_name(self.sparsity), self.sparsity, trained=True)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """Checks that the other run holds masks of that sparsity, and that they fit the model."""
        if self.source is not None:
            found = self._found(self.source)
            if model is not None:
                self._fitting(found, model)

    def sources(self) -> dict[str, str]:
        """Names the masks of the other run."""
        return {} if self.source is None else {f"masks in {self.source}": self._found(self.source).sha256}

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        [stage] = self.plan()
        yield workspace.store.recall(stage) or train(
            workspace, stage, workspace.untrained(), masks=self._masks(workspace)
        )

    def _masks(self, workspace: Workspace) -> Masks:
        model = workspace.encoder.model
        if self.source is None:
            return PRUNERS.build("random", model, sparsity=self.sparsity, seed=workspace.seed).select()
        found = self._found(self.source)
        fitting = self._fitting(found, model)
        if note := _difference(found, fitting):
            workspace.progress.say(note)
        return shuffled_within_layers(fitting, workspace.seed) if self.structure == "layer-shuffled" else fitting

    def _found(self, run: Path) -> Masks:
        try:
            return masks_of_run(run, self.sparsity)
        except OSError as error:
            raise InputError(f"protocol.run {run!s:.200} cannot be read: {error.strerror}. Check the path.") from error

    def _fitting(self, found: Masks, model: nn.Module) -> Masks:
        names = prunable(model)
        strange = [name for name in names.keys() ^ found.keys() if kind_by_name(name)[1] != "pooler"]
        if strange:
            raise InputError(
                f"the ticket of {self.source} was found on another architecture: {min(strange)} is on one side only."
            )
        new = Masks.ones({name: weight for name, weight in names.items() if name not in found})
        fitting = Masks({name: (found if name in found else new)[name] for name in names})
        fitting.parameters(model)  # refuses other shapes
        return fitting


def _difference(found: Masks, fitting: Masks) -> str | None:
    """Says what became of a pooler that only one of the two models has, and of the sparsity with it."""
    now, then = (f"{100 * masks.sparsity:.2f}%" for masks in (fitting, found))
    share = f"{now} of the prunable weights are pruned, in the other run {then}."
    if new := fitting.keys() - found.keys():
        return f"The ticket was found without a pooler: {min(new)} is kept whole, so {share}"
    if left := found.keys() - fitting.keys():
        return f"This model has no pooler: the ticket's {min(left)} is left out, so {share}"
    return None
