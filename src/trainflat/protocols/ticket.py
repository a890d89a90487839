"""Training under a given mask: structure or optimization? (Na, Mehta and Strubell 2022, sections 3.4.2 and 3.4.3)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from trainflat.anatomy import matrix_kind
from trainflat.errors import InputError
from trainflat.protocols.base import Planned, Produced, Protocol, stage_name
from trainflat.protocols.bench import Bench, check_sparsities, masks_of_run
from trainflat.pruning import PRUNERS, Masks, shuffled_within_layers


class Ticket(Protocol):
    """Trains the pre-trained weights under a mask that another run found, or a control of it.

    Args:
        sparsity: Of the ticket.
        run: Folder of the run that found it; it may have learned another task (transfer) with another optimizer.
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
        """One stage."""
        return [Planned(stage_name(self.sparsity), self.sparsity, trained=True)]

    def run(self, bench: Bench) -> Iterator[Produced]:
        """Trains the ticket."""
        [stage] = self.plan()
        yield bench.train(stage, start=bench.initial, masks=bench.recall_masks(stage) or self._masks(bench))

    def _masks(self, bench: Bench) -> Masks:
        if self.source is None:
            return PRUNERS.build("random", bench.model, sparsity=self.sparsity, seed=bench.seed).select()
        found = masks_of_run(self.source, self.sparsity)
        names = Masks.ones(bench.model)
        # Only the pooler may be left over: a span head has none.
        strange = [name for name in names.keys() ^ found.keys() if name in names or matrix_kind(name)[1] != "pooler"]
        if strange:
            raise InputError(
                f"the ticket of {self.source} was found on another architecture: {min(strange)} is on one side only."
            )
        fitting = Masks({name: found[name] for name in names})
        return shuffled_within_layers(fitting, bench.seed) if self.structure == "layer-shuffled" else fitting
