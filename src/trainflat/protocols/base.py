"""Defines what a protocol does: it plans stages, and produces them one by one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from trainflat.anatomy.narrow import CODE_FILE
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.store import MASKS
from trainflat.protocols.workspace import Workspace


class Protocol(ABC):
    """Trains and prunes in some order, as straight-line code: what was done before is recalled from the store."""

    unstructured = True  # its zeros lie anywhere, so that dense kernels do not gain from them
    teaches = False  # later stages learn from the run's own dense one, where the recipe names no other teacher
    fine_tuned = False  # the model that it starts from must have learned the task

    @abstractmethod
    def plan(self) -> list[Planned]:
        """Lists every stage, in order, known before anything is trained."""

    def check(self, steps: int | None, model: nn.Module | None) -> None:  # noqa: B027 -- a hook, not a duty
        """Checks what the recipe alone cannot show, before anything is trained; by default, nothing.

        Args:
            steps: Optimizer steps of one training; None where they depend on rows that are not encoded yet.
            model: Gives the names and shapes of its parameters, which may have no values; None if it is not at hand.

        Raises:
            InputError: the protocol cannot be followed on such rows or with such a model.
        """

    def curve(self, steps: int) -> tuple[str, list[tuple[int, float]]] | None:
        """Names the quantity that is scheduled in a training of so many steps, with (step, value) of its path, if any.

        Raises:
            InputError: it does not fit the steps.
        """
        return None

    def files(self) -> list[str]:
        """Lists what the protocol leaves in the run's folder beside the stages."""
        return []

    def stage_files(self, stage: Planned) -> list[str]:
        """Lists what a stage's folder holds beside the model: masks or, of a smaller model, the file that describes it.

        The latter is only written where the architecture's own config cannot describe the model.
        """
        if not (stage.sparsity or stage.open):
            return []
        return [MASKS] if self.unstructured else [CODE_FILE]

    def settled(self) -> dict[str, Any]:
        """Fills in the options that a recipe may leave open."""
        return {}

    def shared(self, stage: Planned) -> Mapping[str, Any] | None:
        """Returns what decides a stage's weights beside task, model, seed and training; None where no other run has it.

        By default only the dense model is common to protocols: it is trained alike whatever is done to it later.
        """
        return {} if stage.trained and stage.name == "dense" else None

    def sources(self) -> dict[str, str]:
        """Names what comes from other runs, with hashes: an interrupted run goes on with the same only."""
        return {}

    @abstractmethod
    def run(self, workspace: Workspace) -> Iterator[Produced]:
        """Yields the stages of ``plan()`` one by one; each is measured and committed before the next is asked for."""
