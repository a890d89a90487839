"""The gate of one training: when it is in place, what it learns beside the model, how it is resumed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from trainflat.core.errors import InputError
from trainflat.core.files import save_tensors
from trainflat.core.settings import Section, Settings
from trainflat.objective import Objective
from trainflat.optim import FlatOptimizer
from trainflat.pruning import Masks
from trainflat.pruning.gates import (
    GATES,
    Gate,
)
from trainflat.training import checkpoints
from trainflat.training.rows import objective_on_training_rows

if TYPE_CHECKING:
    from trainflat.training.trainer import FlatTrainer

GATE = "gate.safetensors"


class Gated:
    """A gate that is trained along, if one is asked for; else all of it does nothing.

    Args:
        trainer: Whose model is gated.
        recipe: A name, a mapping ``{"name": "hard-movement", "sparsity": 0.9}``, or None.

    Raises:
        InputError: it names none, or options that cannot be used; it has scores, and the trainer a scheduler already.
    """

    def __init__(self, trainer: "FlatTrainer", recipe: Section | None) -> None:
        self._trainer = trainer
        self.name: str | None = None
        if recipe is not None:
            if not isinstance(recipe, str | Mapping | Settings):
                raise InputError(f"gate is a name or a mapping such as {{'name': 'hard-movement'}}, got {recipe!r}.")
            self._settings = GATES.read(recipe)
            self.name = self._settings.name
            if GATES[self.name].learns and trainer.lr_scheduler is not None:
                raise InputError(
                    f"the gate {self.name!r} adds its scores to the optimizer, and a scheduler that was made before "
                    "does not know them. Give optimizers=(optimizer, None), and lr_scheduler_type in the arguments."
                )
        self.gate: Gate | None = None
        self._running = False

    @property
    def swaps(self) -> str | None:
        """The gate's name, if it takes what the model holds between passes for its weights."""
        return self.name if self.name is not None and GATES[self.name].needs_weights else None

    # A training

    def begin(self, total_steps: int, checkpoint: Path | None, step: int) -> None:
        """A training of so many optimizer steps begins, or goes on from a checkpoint after ``step`` of them.

        Raises:
            InputError: the gate does not fit the run or the checkpoint.
        """
        state = None if checkpoint is None else self._read(checkpoint)
        if self.name is None:
            return
        self.gate = self._settings.build(self._trainer.model)
        if self.gate.learns and self._processes > 1 and self._trainer.args.perturb_over == "micro-batch":
            raise InputError("a gate with scores needs perturb_over: window where several processes train.")
        self.gate.begin(total_steps, self._trainer.args.seed, state, step, self._objective)
        self._running = True
        self._trainer.held, self._trainer.masks = self.gate.held, self._masks_held()

    def parameters(self) -> list[nn.Parameter]:
        """The scores."""
        return [] if self.gate is None else list(self.gate.scores.values())

    def join(self, optimizer: Optimizer) -> None:
        """Makes the scores a parameter group of the optimizer, and says what it displaces.

        Raises:
            InputError: ``perturb`` is set, and the optimizer is not one that displaces what it is told to.
        """
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if self.gate is None or not self.gate.learns or all(id(score) in known for score in self.parameters()):
            return
        named = [(f"scores.{name}", score) for name, score in self.gate.scores.items()]
        with_names = "param_names" in optimizer.param_groups[0]
        group = {"params": named if with_names else self.parameters(), **self.gate.score_group()}
        displaces = isinstance(optimizer, FlatOptimizer) and optimizer.rho_only_displaces
        if self.gate.perturb is not None and not displaces:
            raise InputError(
                f"the gate's perturb {self.gate.perturb!r} says what an optimizer like SAM displaces, and "
                f"{type(optimizer).__name__} is not one. Leave it out, or choose sam."
            )
        if self.gate.perturb in ("scores", "none"):
            for other in optimizer.param_groups:
                other["rho"] = 0.0
        optimizer.add_param_group(group)

    @property
    def shares_displacement(self) -> bool:
        """Whether all processes must displace alike, because gradients of scores are made of displaced weights."""
        return self.gate is not None and self.gate.learns

    # A step

    @contextmanager
    def passes(self, share: float = 1.0) -> Iterator[None]:
        """Around passes over ``share`` of the step's rows."""
        self.open()
        try:
            yield
        except BaseException:
            self.abandon()
            raise
        self.close(share)

    def open(self) -> None:
        """The gate is in place."""
        if self.gate is not None:
            self.gate.open()

    def close(self, share: float = 1.0) -> None:
        """It no longer is; gradients are those of weights and scores."""
        if self.gate is not None:
            self.gate.close(share * self._loss_scale)

    def abandon(self) -> None:
        """After an exception."""
        if self.gate is not None:
            self.gate.abandon()

    def observe(self) -> None:
        """The gradients of the step are complete."""
        if self.gate is not None:
            self.gate.observe(self._trainer.optimizer.param_groups[0]["lr"], self._loss_scale)

    def advance(self, step: int) -> None:
        """After the optimizer step with this number, counted from 1."""
        if self.gate is not None:
            self.zero_grad()
            self.gate.advance(step)
            self._trainer.masks = self._masks_held()

    def zero_grad(self) -> None:
        """Clears the gradients of the scores, which are not the model's."""
        for score in self.parameters():
            score.grad = None

    # What is measured and kept

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block, during a training, the model is as sparse as its gate says."""
        if self.gate is None or not self._running:
            yield
            return
        with self.gate.applied():
            yield

    @property
    def waits(self) -> bool:
        """Whether the sparsity is not yet the one that training will end with."""
        return self.gate is not None and not self.gate.settled

    def logs(self) -> dict[str, float]:
        """Numbers for the log."""
        return self.gate.logs() if self.gate is not None and self._running else {}

    def finish(self) -> Masks | None:
        """The model is pruned for good."""
        self._running = False
        return None if self.gate is None else self.gate.finish()

    def save(self, checkpoint: Path) -> None:
        """Adds the gate to a checkpoint."""
        if self.gate is not None:
            save_tensors(checkpoint / GATE, self.gate.state_dict())

    def load(self, checkpoint: Path, step: int) -> None:
        """Takes the gate of a checkpoint."""
        if self.gate is not None:
            self.gate.load_state_dict(self._read(checkpoint) or {}, step)

    def _read(self, checkpoint: Path) -> dict[str, Any] | None:
        return checkpoints.read_beside(checkpoint, GATE, self.name is not None, "a gate")

    def _masks_held(self) -> Masks | None:
        """What the trainer checks at every evaluation and save; of a swapped gate nothing is zero for good."""
        return self.gate.masks() if self.gate is not None and self.gate.held is not None else None

    def _objective(self, rows: int, batch_size: int) -> Objective:
        return objective_on_training_rows(self._trainer, rows, batch_size)

    @property
    def _loss_scale(self) -> float:
        scaler = self._trainer.accelerator.scaler
        return 1.0 if scaler is None else float(scaler.get_scale())

    @property
    def _processes(self) -> int:
        return int(self._trainer.args.world_size)
