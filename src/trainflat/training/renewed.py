"""The best student so far as the teacher: the self-regularisation of PINS (Ren and Zhu, Findings of ACL 2023)."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.core.files import save_tensors
from trainflat.distillation import check_renewal
from trainflat.training import checkpoints

if TYPE_CHECKING:
    from trainflat.training.trainer import FlatTrainer

TEACHER = "teacher.safetensors"
_WEIGHTS = "weights."


class Renewed:
    """A copy of the best model that a training has evaluated so far, if one is asked for; else all of it does nothing.

    After an evaluation whose score, the one that chooses the best checkpoint, is at least that of every evaluation
    before it in this training, the teacher's weights are those that were evaluated: the average where there is one, and
    with the gate in place, so that the teacher of a student that is pruned is as sparse as that student was. Every
    evaluation counts, also those before the final sparsity, none of which can be the best checkpoint. The first of a
    training always counts: as in the published code, the score of the teacher that it began with is no bar. After the
    last step nobody is left to be taught, and nothing is renewed.

    Departs from the published code (``run_glue.py``), which keeps the older of two models of one score, the denser one;
    and which evaluates after the very first step, so that its fine-tuned teacher is gone from the second step on. Here
    the evaluations of the run say when.

    Memory: one more model. The teacher computes in float also where the student is trained for int8.

    Args:
        trainer: Of the student.
        wanted: Whether the teacher is renewed.

    Attributes:
        steps: After which it was; None where none is wanted.
    """

    def __init__(self, trainer: "FlatTrainer", wanted: bool) -> None:
        self._trainer = trainer
        self.steps: list[int] | None = [] if wanted else None
        self._best = -math.inf
        # Copied before anything is wrapped around the model or put into it.
        self._copy: nn.Module | None = copy.deepcopy(trainer.model).requires_grad_(False) if wanted else None

    @property
    def model(self) -> nn.Module | None:
        """The teacher; None as long as it is the first one."""
        return self._copy if self.steps else None

    def begin(self, total_steps: int, steps_per_epoch: int, checkpoint: Path | None) -> None:
        """A training begins, or goes on from a checkpoint.

        Raises:
            InputError: nothing is evaluated before the last step, or it is not said what is best; the checkpoint was
                written without such a teacher, or with one and none was asked for.
            DamagedFile: it is not what was written.
        """
        wanted = self._copy is not None
        what = "a teacher that is renewed"
        state = None if checkpoint is None else checkpoints.read_beside(checkpoint, TEACHER, wanted, what)
        if self._copy is None:
            return
        args = self._trainer.args
        if args.metric_for_best_model is None:
            raise InputError("renew best needs metric_for_best_model, which says what is best. Set it.")
        every = {"epoch": steps_per_epoch, "steps": self._trainer.state.eval_steps}
        check_renewal(total_steps, every.get(str(args.eval_strategy.value), 0))
        self.steps, self._best = [], -math.inf
        self._copy.to(args.device)
        if state is not None:
            self._load(state)

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """The model was scored; to be called on all processes, which hold the same weights and scores.

        Raises:
            InputError: what says who is best is not among the metrics.
        """
        state = self._trainer.state
        if self._copy is None or self.steps is None or state.global_step >= state.max_steps:
            return
        score = self._score(metrics)
        if score >= self._best:  # NaN is not
            self._best = score
            with self._trainer.as_evaluated():
                _take(self._copy, _tensors(self._trainer.model))
            self.steps.append(state.global_step)

    def _score(self, metrics: Mapping[str, float]) -> float:
        args = self._trainer.args
        name = "eval_" + args.metric_for_best_model.removeprefix("eval_")
        if name not in metrics:
            raise InputError(f"renew best chooses by {name}, and the evaluation gives {', '.join(metrics)}. Set one.")
        return metrics[name] if args.greater_is_better else -metrics[name]

    def save(self, checkpoint: Path) -> None:
        """Adds the teacher to a checkpoint; before it was renewed, that it was not."""
        if self._copy is not None:
            state = {"best": torch.tensor(self._best, dtype=torch.float64), "steps": torch.tensor(self.steps).long()}
            renewed = _tensors(self._copy) if self.steps else {}
            save_tensors(checkpoint / TEACHER, state | {_WEIGHTS + name: t for name, t in renewed.items()})

    def _load(self, state: Mapping[str, Tensor]) -> None:
        self.steps, self._best = state["steps"].tolist(), float(state["best"])
        if self._copy is not None and self.steps:
            _take(self._copy, {k.removeprefix(_WEIGHTS): t for k, t in state.items() if k.startswith(_WEIGHTS)})


def _tensors(model: Any) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _take(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = _tensors(model)
    for name in {**own, **tensors}:
        one, other = own.get(name), tensors.get(name)
        if one is None or other is None or one.shape != other.shape:
            raise InputError(f"the teacher is of another model: {name} differs. Resume with the same model.")
        one.copy_(other)
