"""Defines the base class of gates: the calls of a training loop, and the state to resume from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.anatomy.params import prunable, unwrapped
from trainflat.core.errors import InputError
from trainflat.core.schedules import Schedule, ScheduleOption, make_schedule
from trainflat.pruning.enforcer import MaskEnforcer
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import Perturb
from trainflat.pruning.scores.base import ObjectiveSource

_KIND = "gate"  # the class that wrote a state


def final_sparsity(options: Any) -> float | None:
    """Returns the sparsity that a gate with these settings ends with; None where a penalty decides.

    Example:
        >>> from trainflat.pruning.gates import GATES
        >>> final_sparsity(GATES.read("magnitude")), final_sparsity(GATES.read("l0"))
        (0.9, None)
    """
    target: float | None = getattr(options, "target_sparsity", getattr(options, "sparsity", None))
    return target


class Gate(ABC):
    """Decides while a model trains which of its weights stay; in the end the others are pruned for good.

    Two kinds: a :class:`~trainflat.pruning.gates.gradual.GradualPruner` sets weights to zero, more and more of them,
    and none comes back; a :class:`~trainflat.pruning.gates.learned.LearnedMask` has the model compute with masked
    weights while those behind the mask, pruned ones too, go on learning.

    A loop makes these calls, whatever the gate::

        gate.begin(total_steps)                # after which `gate.scores` are parameters for the optimizer
        for step in range(total_steps):
            with gate.passes():                # also around the second pass of SAM, inside `optimizer.perturbed()`
                loss(model).backward()         # as often as the batch is cut; maybe gate.differentiate(terms) before
            gate.observe(lr)
            optimizer.step(); optimizer.zero_grad()
            gate.advance(step + 1)
            with gate.applied(): ...           # evaluation
        masks = gate.finish()

    Args:
        model: Its :func:`trainflat.anatomy.params.prunable` weights are gated.
        schedule: When the sparsity rises: a name, ``{"name": "cubic", "start": 0.1, "hold": 0.3}`` or a ``Schedule``.

    Attributes:
        weights: The gated parameters by name.
        scores: Parameters that the gate learns, by the name of the weight or the units they are for; not the model's.
        total_steps: Of the run; 0 before ``begin``.
        step: Optimizer steps taken so far.

    Raises:
        InputError: for options that cannot be used.
    """

    learns: ClassVar[bool] = False
    """Whether it has scores for the optimizer; such a gate needs FlatTrainer or a loop of one's own."""

    observes: bool = False
    """Whether it ranks by the gradients that ``observe`` shows; these must not have been clipped."""

    needs_weights: bool = False
    """Whether it computes with the trained parameters as weights; no reparametrization may stand between the two."""

    needs_hooks: ClassVar[bool] = False
    """Whether it puts hooks on modules for a while, which a compiled model runs without."""

    perturb: Perturb | None = None
    """What an optimizer like SAM perturbs, of a gate that learns scores; None is its default."""

    held: MaskEnforcer | None = None
    """Masks for the optimizer to hold, of a gate that sets weights to zero; made by ``begin``."""

    def __init__(self, model: nn.Module, schedule: ScheduleOption = "cubic") -> None:
        self.model = unwrapped(model)
        self.weights: dict[str, nn.Parameter] = prunable(model)
        self.schedule: Schedule = make_schedule(schedule)
        self.scores: dict[str, nn.Parameter] = {}
        self.step, self.total_steps, self.seed = 0, 0, 0
        self.objective: ObjectiveSource = None

    # What a loop calls

    def begin(
        self,
        total_steps: int,
        seed: int = 0,
        state: Mapping[str, Tensor] | None = None,
        step: int = 0,
        objective: ObjectiveSource = None,
    ) -> None:
        """Begins a run of so many optimizer steps, before the first of them; or continues one.

        Args:
            total_steps: Of the whole run.
            seed: Of gates that draw.
            state: What ``state_dict`` returned after ``step`` steps, of a run that goes on.
            step: How many were taken.
            objective: Of gates that measure the loss on rows of their own.

        Raises:
            InputError: the schedule is longer than the run; the model has no weights to gate, frozen or sharded ones;
                the state is of another model.
        """
        self.refuse_unfit()
        self.check_length(self, total_steps)
        self.step, self.total_steps, self.seed, self.objective = 0, total_steps, seed, objective
        self.prepare()
        if state is None:
            self.advance(0)
        else:
            self.load_state_dict(state, step)

    def refuse_unfit(self) -> None:
        """Raises InputError for a model whose weights cannot be gated."""
        _refuse_weights(self.model, self.weights)

    @classmethod
    def check_model(cls, options: Any, model: nn.Module) -> None:
        """Raises InputError for a model whose weights a gate with these settings cannot be on."""
        _refuse_weights(model, prunable(model))

    @classmethod
    def check_length(cls, options: Any, total_steps: int) -> None:
        """Raises InputError for a schedule that does not fit so many steps, or not this kind of gate.

        Args:
            options: Has the gate's options as attributes: its settings, before there is a model, or the gate.
            total_steps: Optimizer steps of the training.
        """
        options.schedule.lengths(total_steps)

    @contextmanager
    def passes(self, weight: float = 1.0) -> Iterator[None]:
        """Holds the gate in place for the passes of a step; an exception restores the weights and drops gradients."""
        self.open()
        try:
            yield
        except BaseException:
            self.abandon()
            raise
        self.close(weight)

    def open(self) -> None:
        """Puts the gate in place, before the first forward pass; does nothing if it is already."""

    def close(self, weight: float = 1.0) -> None:
        """Takes the gate away after the last backward pass; the gradients are then of weights and scores.

        Args:
            weight: What the losses of the passes were multiplied by; a penalty on scores is multiplied alike.
        """

    def abandon(self) -> None:
        """Takes the gate away and leaves the gradients as they are."""

    @abstractmethod
    def advance(self, step: int) -> None:
        """Prepares what the next pass will see, after ``step`` optimizer steps."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Makes the model as sparse as it would be if the training ended now; at the end of the block as it was."""
        yield

    @abstractmethod
    def masks(self) -> Masks:
        """Returns which weights would stay if the training ended now."""

    @torch.no_grad()
    def finish(self) -> Masks | None:
        """Prunes the model for good, as it was inside ``applied()``; None of a gate on activations, which does not."""
        masks = self.masks()
        self.fold()
        masks.apply_(self.model)
        return masks

    @property
    def kind(self) -> str:
        """Returns the gate's name in its states."""
        return type(self).__name__

    @property
    @abstractmethod
    def scheduled_quantity(self) -> tuple[str, float]:
        """The name of what the schedule raises from 0, and its last value: ``("sparsity", 0.9)``."""

    @property
    def settled(self) -> bool:
        """Returns whether the sparsity is final: only then can a checkpoint be the best."""
        return self.schedule.share(self.step, self.total_steps) == 1

    def differentiate(self, terms: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Takes gradients of one term of a pass's loss alone, if it ranks by them; before the backward pass.

        Args:
            terms: By name; the loss is their sum. Their graph is left for the backward pass.
            weight: What the loss is multiplied by in the backward pass.
        """

    def observe(self, lr: float, weight: float = 1.0) -> None:
        """Takes in the gradients of a step: complete, reduced over processes and not yet clipped.

        Args:
            lr: Learning rate of the coming step.
            weight: What the gradients are multiplied by (a loss scaler's factor).
        """

    def logs(self) -> dict[str, float]:
        """Returns numbers for the log: ``sparsity`` as the last pass saw it."""
        return {"sparsity": self.masks().sparsity}

    # What a method may add

    def prepare(self) -> None:
        """Makes what lasts for the run: scores, masks. Called by ``begin``, before ``advance(0)``."""

    def fold(self) -> None:
        """Multiplies what the survivors keep for good into the weights, before the others are set to zero."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Returns what the gate learns as parameter groups for the optimizer: (name, parameter) pairs and options.

        ``"clip"``, ``"reduce"`` and ``"constant"`` among these are for a loop: whether gradients are clipped with the
        model's, whether they have to be averaged over processes, and whether the rate stays as it is.
        """
        named = [(f"scores.{name}", score) for name, score in self.scores.items()]
        return [{"params": named, **self.score_group()}] if named else []

    def score_group(self) -> dict[str, Any]:
        """Returns options of the optimizer's parameter group of the scores, such as their own ``lr``."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what a resumed run needs beside the model and the optimizer, for safetensors."""
        kind = torch.tensor([*self.kind.encode()], dtype=torch.uint8)
        return {f"scores.{name}": score.detach() for name, score in self.scores.items()} | {_KIND: kind}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        """Goes on after ``step`` steps, from what ``state_dict`` returned then; ``begin`` comes before.

        Raises:
            InputError: the state is that of another kind of gate, or the scores are those of another model.
        """
        kind = bytes(state[_KIND].tolist()).decode() if _KIND in state else self.kind  # older checkpoints have none
        if kind != self.kind:
            raise InputError(f"the state is of another gate, {kind}, and not of {self.kind}. Resume with that gate.")
        stored = {name.removeprefix("scores."): t for name, t in state.items() if name.startswith("scores.")}
        for name in {**self.scores, **stored}:
            one, other = stored.get(name), self.scores.get(name)
            if one is None or other is None or one.shape != other.shape:
                raise InputError(f"the scores are of another model: {name} differs. Resume with the same model.")
        for name, score in self.scores.items():
            score.copy_(stored[name])
        self.step = step

    def refuse_denser_than(self, target: float) -> None:
        """Raises InputError if more of the weights are zero already than will be at the end."""
        matrices = [w for w in self.weights.values() if w.dim() > 1]  # biases may begin at zero
        zeros = sum(int((w == 0).sum()) for w in matrices)
        entries = sum(w.numel() for w in matrices)
        if zeros - target * entries > len(self.weights):  # each matrix was rounded on its own
            raise InputError(
                f"sparsity {target:g} is below the {zeros / entries:.4f} of the weights that are zero already. Ask "
                "for more, or begin with a dense model."
            )


def _refuse_weights(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    if not weights:
        raise InputError(f"{type(model).__name__} has no prunable weights: no matrix outside its embeddings.")
    frozen = [name for name, w in weights.items() if not w.requires_grad]
    if frozen:
        raise InputError(f"{frozen[0]} is frozen, so that no gate can learn. Let it train, or prune in one shot.")
    flattened = [name for name, w in prunable(model).items() if w.dim() < 2]
    sharded = flattened + [name for name, w in weights.items() if hasattr(w, "placements")]
    if sharded:
        raise InputError(f"{sharded[0]} is sharded, as FSDP does it; gates need whole matrices. Use data parallel.")
