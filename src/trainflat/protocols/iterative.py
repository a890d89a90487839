"""Iterative pruning with or without rewinding (Frankle and Carbin 2019; Chen et al. 2020; Na et al. 2022)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from trainflat.core.errors import InputError
from trainflat.core.files import MANIFEST
from trainflat.core.formatting import plural
from trainflat.protocols.base import Protocol
from trainflat.protocols.stages import Planned, Produced, check_sparsities, stage_name
from trainflat.protocols.store import REWIND
from trainflat.protocols.workspace import Workspace, build_pruner, train
from trainflat.pruning import PRUNERS, PrunerSection, Scope
from trainflat.training.features.snapshot import SNAPSHOT

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
        """Lists the dense model, then one round per sparsity."""
        return [Planned(stage_name(s), s, trained=True) for s in (0.0, *self.sparsities)]

    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """Checks that the step to rewind to is one of the dense training."""
        if steps is not None and self.rewind != "none" and self.rewind > steps:
            raise InputError(
                f"protocol.rewind {self.rewind} lies beyond the {plural(steps, 'step')} of the dense training. "
                f"Choose 0 to {steps}."
            )

    def files(self) -> list[str]:
        """Lists the weights of the step that is rewound to."""
        return [] if self._snapshot is None else [f"{REWIND}/{SNAPSHOT}", f"{REWIND}/{MANIFEST}"]

    def shared(self, stage: Planned) -> Mapping[str, Any] | None:
        """Returns the way to a round; None where rounds go back to a step whose weights another run may not have."""
        if self._snapshot is not None:
            return None
        if stage.name == "dense":
            return {}
        way = [sparsity for sparsity in self.sparsities if sparsity <= stage.sparsity]
        how = {"pruner": self.pruner.section(), "scope": self.scope, "rewind": self.rewind, "head": self.head}
        return {"sparsities": way, **how}

    def settled(self) -> dict[str, Any]:
        """Says what becomes of the head."""
        return {"head": self.head}

    def run(self, workspace: Workspace) -> Iterator[Produced]:
        self.check(workspace.steps, workspace.encoder.model)
        dense, *rounds = self.plan()
        # Without its snapshot, the dense model is trained again, to the same weights.
        known = workspace.store.recall(dense) if self._snapshot is None or workspace.store.has_snapshot else None
        before = known or train(workspace, dense, workspace.untrained(), snapshot=self._snapshot)
        yield before
        for stage in rounds:
            before = workspace.store.recall(stage) or self._round(workspace, before, stage)
            yield before

    def _round(self, workspace: Workspace, before: Produced, stage: Planned) -> Produced:
        """Prunes the weights that the round before trained, rewinds the others and trains them."""
        pruner = build_pruner(workspace, before.model, self.pruner, stage.sparsity, self.scope, before.masks)
        return train(workspace, stage, self._start(workspace, before), masks=pruner.select())

    @property
    def _snapshot(self) -> int | None:
        return None if self.rewind in ("none", 0) else int(self.rewind)

    def _start(self, workspace: Workspace, before: Produced) -> PreTrainedModel:
        """Makes the model that a round starts from: encoder and head each rewound, or as trained before."""
        model = workspace.untrained()
        trained = before.model.state_dict()
        origin = model.state_dict() if self._snapshot is None else workspace.store.snapshot()
        encoder = trained if self.rewind == "none" else origin
        head = trained if self.head == "keep" else origin
        outside = head_names(model)
        model.load_state_dict({name: (head if name in outside else encoder)[name] for name in encoder})
        return model


def head_names(model: PreTrainedModel) -> frozenset[str]:
    """Names the tensors of the task head: all that are not the encoder's."""
    inside = {id(tensor) for tensor in model.base_model.state_dict(keep_vars=True).values()}
    return frozenset(name for name, t in model.state_dict(keep_vars=True).items() if id(t) not in inside)
