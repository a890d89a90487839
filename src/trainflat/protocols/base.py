"""What a protocol says: which models come after which, and how each came about."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from trainflat.pruning import Masks
from trainflat.records.run import Training

if TYPE_CHECKING:
    from trainflat.protocols.bench import Bench


@dataclass(frozen=True)
class Planned:
    """A stage that will come; what ``trainflat check`` prints."""

    name: str  # also its folder
    sparsity: float
    trained: bool
    open: bool = False  # a penalty decides how sparse it gets; then `sparsity` is 0


@dataclass(frozen=True)
class Produced:
    """A stage that stands on the bench: the model now holds its weights."""

    plan: Planned
    masks: Masks | None
    training: Training | None
    seconds: float = 0.0


class Protocol(ABC):
    """An order of training and pruning, as straight-line code: what was done before is recalled by the bench."""

    unstructured = True  # its zeros lie anywhere, so that dense kernels do not gain from them

    @abstractmethod
    def plan(self) -> list[Planned]:
        """Every stage, in order, known before anything is trained."""

    @abstractmethod
    def check(self, steps: int | None, model: nn.Module | None) -> None:
        """What the recipe alone does not tell, said before anything is trained.

        Args:
            steps: Optimizer steps of one training; None where only the encoded rows will tell.
            model: Gives the names and shapes of its parameters, which may have no values; None if it is not at hand.

        Raises:
            InputError: the protocol cannot be followed on such rows or with such a model.
        """

    def curve(self, steps: int) -> tuple[str, list[tuple[int, float]]] | None:
        """What rises in a training of so many steps, and (step, value) of its path; None where nothing does.

        Raises:
            InputError: it does not fit the steps.
        """
        return None

    def files(self) -> list[str]:
        """What it leaves in the run's folder beside the stages."""
        return []

    def settled(self) -> dict[str, Any]:
        """What options come to that a recipe may leave open."""
        return {}

    def sources(self) -> dict[str, str]:
        """What of other runs its rounds are made of, and the hashes: an interrupted run goes on with the same only."""
        return {}

    @abstractmethod
    def run(self, bench: "Bench") -> Iterator[Produced]:
        """Yields the stages of ``plan()`` one by one."""


def stage_name(sparsity: float) -> str:
    """``dense`` or ``sparsity-0.30``; more digits, up to ten, where two are not enough."""
    if sparsity == 0:
        return "dense"
    text = f"{sparsity:.10f}".rstrip("0")
    whole, digits = text.split(".")
    return f"sparsity-{whole}.{digits.ljust(2, '0')}"
