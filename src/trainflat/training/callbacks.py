"""Callbacks of ``transformers.Trainer``: call features, and prune under a plain Trainer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors, save_tensors
from trainflat.objective import Objective
from trainflat.pruning import Attached, Masks
from trainflat.pruning.gates import Gate
from trainflat.training import checkpoints
from trainflat.training.features import Features
from trainflat.training.features.gate import GATE


class FeatureCallback(TrainerCallback):  # type: ignore[misc]
    """Calls features after each optimizer step, and has the Trainer log wherever a checkpoint begins."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        for feature in self.features.values():
            feature.weights_moved()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.features.zero_grad()
        for feature in self.features.values():
            feature.stepped(state.global_step)
        self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Sums between logs are not in a checkpoint: log first, so that there are none.
        may_save = control.should_save or (control.should_evaluate and args.save_strategy == SaveStrategy.BEST)
        control.should_log = control.should_log or may_save


def patience_spent(callbacks: Iterable[TrainerCallback]) -> bool:
    """Returns whether early stopping has ended the training."""
    early = [c for c in callbacks if isinstance(c, EarlyStoppingCallback)]
    return any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in early)


class GateCallback(TrainerCallback):  # type: ignore[misc]
    """Prunes while a plain ``transformers.Trainer`` trains: ``Trainer(..., callbacks=[GateCallback(gate)])``.

    For gates that set weights to zero (``magnitude``, ``pins``), which a callback can hold. Gates with scores put
    these into the optimizer and change the gradients before they are clipped, which only
    :class:`~trainflat.training.FlatTrainer` can do. The Trainer resumes the gate from its own checkpoints.

    Args:
        gate: On the Trainer's model.
        objective: For gates that measure the loss on rows of their own (``grasp``, ``gradient-norm``).

    Attributes:
        masks: Of the pruned model, when training has ended; else None.

    Raises:
        InputError: for a gate with scores; when training begins, for a gate on another model, for
            ``load_best_model_at_end``, which would take a model from before it was as sparse as asked for, for clipping
            where the gate ranks by gradients, which a callback sees only when they are clipped, for a checkpoint
            without the gate, and for what the gate refuses.
    """

    def __init__(self, gate: Gate, objective: Objective | None = None) -> None:
        if gate.learns:
            raise InputError(
                f"{type(gate).__name__} learns scores, which a callback cannot train. Use FlatTrainer(gate=...)."
            )
        self.gate, self.objective = gate, objective
        self.masks: Masks | None = None
        self._attached: Attached | None = None

    def on_train_begin(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        self._refuse_unfit(args, model)
        step = state.global_step
        file = checkpoints.path(Path(args.output_dir), step) / GATE
        if step and not file.is_file():
            raise InputError(
                f"{file} is missing: a gate goes on from what it wrote into output_dir. Begin anew, or resume there."
            )
        self.gate.begin(state.max_steps, args.seed, load_tensors(file)[0] if step else None, step, self.objective)
        held = self.gate.held
        if held is not None:
            self._attached = held.attach(getattr(optimizer, "optimizer", optimizer))

    def _refuse_unfit(self, args: Any, model: Any) -> None:
        trained = {id(p) for p in model.parameters()}
        if not all(id(p) in trained for p in self.gate.weights.values()):
            raise InputError(f"{type(self.gate).__name__} is on another model than the Trainer's. Make it on that one.")
        if args.load_best_model_at_end:
            raise InputError(
                "load_best_model_at_end may load a model from before it was pruned. Turn it off, or use FlatTrainer, "
                "for which only a model as sparse as asked for can be the best."
            )
        if self.gate.observes and args.max_grad_norm > 0:
            raise InputError(
                f"{type(self.gate).__name__} ranks by gradients that are not clipped, and a callback sees them clipped "
                f"to max_grad_norm {args.max_grad_norm:g}. Set it to 0, or use FlatTrainer(gate=...)."
            )

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, optimizer: Any = None, **kwargs: Any
    ) -> None:
        self.gate.observe(optimizer.param_groups[0]["lr"])  # to log their norm the Trainer has unscaled the gradients

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.gate.advance(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        if logs is not None and "loss" in logs:
            logs.update(self.gate.logs())

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            save_tensors(checkpoints.path(Path(args.output_dir), state.global_step) / GATE, self.gate.state_dict())

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.masks = self.gate.finish()
        if self._attached is not None:
            self._attached.remove()
