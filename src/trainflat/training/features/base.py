"""The contract of a feature: what joins a training beside the loop, and all that it knows of the training."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainingArguments

from trainflat.core.files import load_tensors, save_tensors
from trainflat.core.settings import Settings
from trainflat.objective import Objective
from trainflat.pruning import Masks
from trainflat.training import checkpoints

ADDED = "trainflat."  # begins the keys that features add to a batch; the model is called without them
State = Mapping[str, Tensor]
Context = AbstractContextManager[None]


@dataclass(frozen=True)
class Run:
    """Describes the training that a feature joins; features never see the Trainer.

    Attributes:
        model: The trained model, without the wrappers of data parallel or ``torch.compile``.
        args: The Trainer's arguments.
        features: All features of the training, by recipe key.
        tokenizer: The model's tokenizer, or None.
        objective: Makes the model's own loss on training rows, from (rows, rows per pass).
        autocast: Makes the context in which forward passes compute in the training's precision.
        own_loss: Whether label smoothing or a loss function of the user replaces the loss of the model's head.
        has_scheduler: Whether a learning rate scheduler was made before the features added parameters.
        loss_is_scaled: Whether a ``GradScaler`` is at work (float16).
        total_steps: Optimizer steps of the whole training; 0 before a training begins.
        steps_per_epoch: Optimizer steps of one epoch.
        evaluate_every: Optimizer steps between two evaluations; 0 for none.
    """

    model: nn.Module
    args: TrainingArguments
    features: "Features"
    tokenizer: Any
    objective: Callable[[int, int], Objective]
    autocast: Callable[[], Context]
    own_loss: bool = False
    has_scheduler: bool = False
    loss_is_scaled: bool = False
    total_steps: int = 0
    steps_per_epoch: int = 0
    evaluate_every: int = 0

    @property
    def seed(self) -> int:
        """The training's seed."""
        return int(self.args.seed)

    @property
    def processes(self) -> int:
        """The number of processes that train data parallel."""
        return int(self.args.world_size)


class Feature:
    """Joins a training; a subclass overrides the hooks that it needs, and all others do nothing.

    The constructor checks the settings alone. Hooks are called in the order in which they stand here.

    Args:
        settings: What the recipe or the user gave under the feature's key.

    Attributes:
        run: The training; its lengths are known from ``begin`` on.
    """

    run: Run

    file: ClassVar[str] = ""
    """The name of the file beside a checkpoint that holds ``state_dict()``; empty for a feature without state."""

    state_name: ClassVar[str] = ""
    """What messages call that state, such as ``"averaging"``."""

    shares_displacement: bool = False
    """Whether the gradient that displaces the weights must be the same on all processes, as with sync_perturbation."""

    reads_weights: bool = False
    """Whether the feature takes what the model holds between passes for its weights, so that it must not be θ."""

    in_recipes: ClassVar[bool] = True
    """Whether a recipe may have the feature under its key in ``training``; False for what protocols or users add."""

    def __init__(self, settings: Any) -> None: ...

    @classmethod
    def read(cls, section: Any) -> Any:
        """Reads what a recipe has under the feature's key, without a model, as settings for the constructor.

        Raises:
            InputError: it cannot be used.
        """
        return section

    @classmethod
    def write(cls, settings: Any) -> Any:
        """Returns the settings as JSON for the recipe's hash, record and plan; :meth:`read` reads them again."""
        return settings.section() if isinstance(settings, Settings) else settings

    @classmethod
    def outlook(cls, settings: Any, steps: int, steps_per_epoch: int) -> str:
        """Says for a plan what the feature will come to in a training of so many optimizer steps, if anything.

        Raises:
            InputError: it does not fit so many steps.
        """
        return ""

    @classmethod
    def check_teacher(cls, settings: Any, student: nn.Module, teacher: nn.Module, fellows: Mapping[str, Any]) -> None:
        """Refuses, before anything is trained, a teacher that does not fit; models may have names and shapes alone.

        Args:
            settings: The feature's own.
            student: The model that will be trained.
            teacher: The model that it will learn from.
            fellows: Settings of all features by key; None where one does not join.

        Raises:
            InputError: names what differs.
        """

    @classmethod
    def settings_in(cls, settings: Mapping[str, Any], key: str) -> Any:
        """Picks the feature's settings out of all features' settings; None and False leave the feature out."""
        return settings.get(key)

    @property
    def ready(self) -> bool:
        """Whether the model of an evaluation may be the best; False before, say, the final sparsity is reached."""
        return True

    @property
    def restarts_at(self) -> int | None:
        """The number of steps after which the schedule of learning rates begins anew; None for never."""
        return None

    @property
    def masks(self) -> Masks | None:
        """The masks of weights that are pruned for good."""
        return None

    @property
    def product(self) -> Any:
        """What a finished stage keeps of the feature beside the model."""
        return None

    def join(self) -> None:
        """Called by the trainer's constructor: refuses a model, arguments or other features that do not fit."""

    def begin(self, state: State | None, step: int) -> None:
        """Begins a training, before the optimizer is made.

        Args:
            state: What ``state_dict`` returned after ``step`` steps, in a training that goes on from a checkpoint.
            step: The number of optimizer steps taken before.
        """
        if state is not None:
            self.load_state_dict(state, step)

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters that are not the model's, as parameter groups for the optimizer.

        ``"params"`` holds (name, parameter) pairs; other keys are torch's (``lr``, ``maximize``, ``weight_decay``) and
        the flat optimizers' (``rho``), and three of our own:

        - ``"clip"``: whether the gradients are clipped together with the model's; True by default.
        - ``"reduce"``: whether the gradients are averaged over processes, which data parallel does for the model's
          parameters alone; False by default, for gradients that are computed from averaged ones.
        - ``"constant"``: whether the rate stays as it is, whatever the schedule of the others; False by default.
        """
        return []

    def optimizer_made(self, optimizer: Optimizer) -> None:
        """Called with the optimizer, whose groups hold the model's and the features' parameters."""

    def batch(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Adds to a micro-batch, under keys that begin with ``ADDED``, what all passes over it need; called once."""
        return inputs

    def passes(self, weight: float, again: bool) -> Context:
        """Makes the context around the passes of a step; between a step's displacement and its way back, if displaced.

        Args:
            weight: What the passes' losses are multiplied by: their share of the step's rows, and a loss scale.
            again: Whether a pass at the undisplaced weights has seen the same rows.
        """
        return nullcontext()

    def terms(
        self, terms: dict[str, Tensor], outputs: Any, inputs: Mapping[str, Any], weight: float
    ) -> dict[str, Tensor]:
        """The named terms of a micro-batch's loss, which the trainer adds up; each that joins ``"task"`` is logged.

        Args:
            terms: ``"task"``, the loss of the head, and the terms of the features before.
            outputs: Of the model.
            inputs: The micro-batch, with what ``batch`` added.
            weight: What ``"task"`` was multiplied by, where its mean does not count rows.
        """
        return terms

    def terms_known(self, terms: Mapping[str, Tensor], weight: float) -> None:
        """Called with all terms of a micro-batch's loss, before the backward pass, which still needs their graph.

        Args:
            terms: By name, as they are added up.
            weight: What the backward pass multiplies the sum by: the micro-batch's share of the step's rows, and a
                loss scale.
        """

    def row_losses(self, losses: Tensor, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        """The losses [B] of the rows, for optimizers that choose rows by them; called without a graph."""
        return losses

    def gradients(self, lr: float, scale: float) -> None:
        """Called when the step's gradients are complete and reduced over processes, before they are clipped.

        Args:
            lr: The learning rate of the coming step.
            scale: What the gradients are multiplied by (a loss scale).
        """

    def loss_known(self, loss: Tensor, where: Callable[[], str]) -> None:
        """Called with the loss of each micro-batch; ``where`` names the step and the rows."""

    def weights_moved(self) -> None:
        """Called right after the optimizer's step."""

    def stepped(self, step: int) -> None:
        """Called at the end of an optimizer step, with its number, counted from 1."""

    def logs(self, evaluated: bool) -> dict[str, float]:
        """Numbers for a log of training losses, or of an evaluation."""
        return {}

    def as_finished(self) -> Context:
        """Makes the context in which the model is what training would end with now; evaluations run inside."""
        return nullcontext()

    def as_saved(self) -> Context:
        """Makes the context in which the model holds ordinary weights to go on from; checkpoints are written inside."""
        return nullcontext()

    def check(self) -> None:
        """Raises where the model is not what the feature promises; called before evaluations and saves."""

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called with the metrics of an evaluation, on all processes, before a best checkpoint is chosen."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed training needs beside the model and the optimizer, for safetensors."""
        return {}

    def load_state_dict(self, state: State, step: int) -> None:
        """Takes over what ``state_dict`` returned after ``step`` steps."""

    def finish(self) -> None:
        """Called when training is complete: makes the model for good what it was inside ``as_finished()``."""

    def load_best(self, state: State, step: int) -> None:
        """Called when the model has taken the best checkpoint's weights, with the state beside them."""
        if state:
            self.load_state_dict(state, step)
        self.finish()

    def ended(self) -> None:
        """Called when training ends, however it does: leaves ordinary weights in the model."""

    def release(self) -> None:
        """Takes off the model what still is on it after training; called when nobody evaluates it any more."""

    def record(self) -> dict[str, Any]:
        """Fields for the record of the training."""
        return {}


class Features(dict[str, Feature]):
    """The features of one training by recipe key; the first is the outermost in nested contexts.

    Args:
        table: All features there are.
        settings: By key.
    """

    def __init__(self, table: Mapping[str, type[Feature]], settings: Mapping[str, Any]) -> None:
        self._table = dict(table)
        given = ((key, kind, kind.settings_in(settings, key)) for key, kind in table.items())
        super().__init__((key, kind(value)) for key, kind, value in given if value is not None and value is not False)

    def join(self, run: Run) -> None:
        """Joins a trainer that was constructed."""
        for feature in self.values():
            feature.run = run
        for feature in self.values():
            feature.join()

    def begin(self, run: Run, checkpoint: Path | None, step: int) -> None:
        """Begins a training, or goes on from a checkpoint after ``step`` steps.

        Raises:
            InputError: the checkpoint was written with other features; a feature does not fit the training.
            DamagedFile: a state is not what was written.
        """
        for feature in self.values():
            feature.run = run
        for key, kind in self._table.items():
            found, state = self.get(key), None
            if checkpoint is not None and kind.file:
                state = checkpoints.read_beside(checkpoint, kind.file, found is not None, kind.state_name)
            if found is not None:
                found.begin(state, step)

    def save(self, checkpoint: Path) -> None:
        """Adds the states to a checkpoint."""
        for feature in self.values():
            if feature.file:
                save_tensors(checkpoint / feature.file, feature.state_dict())

    def load_best(self, checkpoint: Path, step: int) -> None:
        """Takes the states of the best checkpoint, whose weights the model holds."""
        for feature in self.values():
            feature.load_best(load_tensors(checkpoint / feature.file)[0] if feature.file else {}, step)

    def parameters(self, *, clipped: bool = False, reduced: bool = False) -> list[nn.Parameter]:
        """Parameters outside the model: all, or those clipped with the model's, or averaged over processes."""
        groups = [group for feature in self.values() for group in feature.param_groups()]
        chosen = [g for g in groups if (not clipped or g.get("clip", True)) and (not reduced or g.get("reduce"))]
        return [parameter for group in chosen for _, parameter in group["params"]]

    def zero_grad(self) -> None:
        """Clears the gradients of the parameters outside the model, which ``model.zero_grad()`` does not."""
        for parameter in self.parameters():
            parameter.grad = None

    def passes(self, weight: float, again: bool = False) -> Context:
        """All contexts around passes, nested."""
        return nested(feature.passes(weight, again) for feature in self.values())

    def as_finished(self) -> Context:
        """Inside the block the model is what training would end with now."""
        return nested(feature.as_finished() for feature in self.values())

    def as_saved(self) -> Context:
        """Inside the block the model holds ordinary weights."""
        return nested(feature.as_saved() for feature in self.values())

    def merged(self, of: Callable[[Feature], Mapping[str, Any]]) -> dict[str, Any]:
        """What all features give, as one mapping."""
        return {name: value for feature in self.values() for name, value in of(feature).items()}


@contextmanager
def nested(contexts: Iterable[Context]) -> Iterator[None]:
    """Enters contexts one inside the other; each is made when those before it have been entered."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def without_added(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The micro-batch as the model reads it: without what features added."""
    return {key: value for key, value in inputs.items() if not key.startswith(ADDED)}
