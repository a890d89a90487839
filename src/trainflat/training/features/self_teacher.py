"""Self-teaching: the best student so far becomes the teacher, as in PINS (Ren and Zhu, Findings of ACL 2023)."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.core.errors import InputError
from trainflat.distillation import check_renewal, read_distillation
from trainflat.training.features.base import Feature, State

_WEIGHTS = "weights."


class SelfTeacher(Feature):
    """Copies the best model that was evaluated so far into a teacher; joins distillation with ``renew: best``.

    After an evaluation whose score, the one that chooses the best checkpoint, is at least the score of every evaluation
    before it in this training, the teacher takes the weights that were evaluated: the average where there is one, and
    with the gate in place, so that the teacher of a pruned student is as sparse as that student was. Every evaluation
    counts, also before the final sparsity, when none can be the best checkpoint. The first evaluation of a training
    always counts: as in the published code, the score of the first teacher is no bar. After the last step nothing is
    copied, since nobody is left to be taught.

    Departs from the published code (``run_glue.py``), which keeps the older of two models of one score, the denser one;
    and which evaluates after the very first step, so that its fine-tuned teacher is gone from the second step on. Here
    the evaluations of the run say when.

    Memory: one more model. The teacher computes in float also where the student is trained for int8.

    Attributes:
        steps: The steps after which the teacher took the student's weights.

    Raises:
        InputError: when training begins, if nothing is evaluated before the last step, or no metric says what is best;
            at an evaluation without that metric.
    """

    in_recipes = False
    file = "teacher.safetensors"
    state_name = "a teacher that is renewed"

    def __init__(self, settings: bool) -> None:
        self.steps: list[int] = []
        self._best = -math.inf
        self._copy: nn.Module | None = None

    @classmethod
    def settings_in(cls, settings: Mapping[str, Any], key: str) -> Any:
        section = settings.get("distillation")
        return section is not None and read_distillation(section).renew == "best"

    def join(self) -> None:
        # Copied before anything is wrapped around the model or put into it.
        self._copy = copy.deepcopy(self.run.model).requires_grad_(False)

    @property
    def model(self) -> nn.Module | None:
        """The teacher; None as long as no student has become one."""
        return self._copy if self.steps else None

    def begin(self, state: State | None, step: int) -> None:
        if self.run.args.metric_for_best_model is None:
            raise InputError("renew best needs metric_for_best_model, which says what is best. Set it.")
        check_renewal(self.run.total_steps, self.run.evaluate_every)
        self.steps, self._best = [], -math.inf
        self._teacher.to(self.run.args.device)
        super().begin(state, step)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        if step >= self.run.total_steps:
            return
        score = self._score(metrics)
        if score >= self._best:  # NaN is not
            self._best = score
            with self.run.features.as_finished():
                _copy_into(self._teacher, _tensors(self.run.model))
            self.steps.append(step)

    def _score(self, metrics: Mapping[str, float]) -> float:
        name = "eval_" + str(self.run.args.metric_for_best_model).removeprefix("eval_")
        if name not in metrics:
            raise InputError(f"renew best chooses by {name}, and the evaluation gives {', '.join(metrics)}. Set one.")
        return metrics[name] if self.run.args.greater_is_better else -metrics[name]

    def state_dict(self) -> dict[str, Tensor]:
        state = {"best": torch.tensor(self._best, dtype=torch.float64), "steps": torch.tensor(self.steps).long()}
        weights = _tensors(self._teacher) if self.steps else {}
        return state | {_WEIGHTS + name: tensor for name, tensor in weights.items()}

    def load_state_dict(self, state: State, step: int) -> None:
        self.steps, self._best = state["steps"].tolist(), float(state["best"])
        if self.steps:
            _copy_into(self._teacher, {k.removeprefix(_WEIGHTS): t for k, t in state.items() if k.startswith(_WEIGHTS)})

    def load_best(self, state: State, step: int) -> None:
        """Does nothing: the record tells all steps that renewed the teacher, not those before the best checkpoint."""

    def record(self) -> dict[str, Any]:
        return {"teacher_steps": self.steps}

    @property
    def _teacher(self) -> nn.Module:
        assert self._copy is not None, "join() makes it"
        return self._copy


def _tensors(model: Any) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = _tensors(model)
    for name in {**own, **tensors}:
        one, other = own.get(name), tensors.get(name)
        if one is None or other is None or one.shape != other.shape:
            raise InputError(f"the teacher is of another model: {name} differs. Resume with the same model.")
        one.copy_(other)
