"""Pruning by a gate while the model trains."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from trainflat.core.errors import InputError
from trainflat.core.settings import Section, Settings
from trainflat.optim import FlatOptimizer
from trainflat.pruning import Masks
from trainflat.pruning.gates import METHODS, Gate, StructuralGate, read_gate
from trainflat.training.features.base import Context, Feature, State
from trainflat.training.features.masks import enforce
from trainflat.training.restarts import forget

GATE = "gate.safetensors"


class GateFeature(Feature):
    """Prunes while a model trains; evaluations see the gated model, and training ends with its masks.

    Args:
        settings: The name of a gate, or a mapping ``{"name": "hard-movement", "sparsity": 0.9}``.

    Raises:
        InputError: an unknown name or option; beside fixed masks; a gate with scores beside a scheduler, which would
            not know them, or with ``perturb`` and an optimizer that displaces nothing.
    """

    in_recipes = False
    file = GATE
    state_name = "a gate"

    def __init__(self, settings: Section) -> None:
        if not isinstance(settings, str | Mapping | Settings):
            raise InputError(f"gate is a name or a mapping such as {{'name': 'hard-movement'}}, got {settings!r}.")
        self._settings = read_gate(settings)
        self.name = self._settings.name
        self.kind: type[Gate] = self._settings.member
        self.reads_weights = self.kind.needs_weights
        # Gradients of scores are made of displaced weights, which processes therefore must displace alike.
        self.shares_displacement = self.kind.learns
        self.gate: Gate | None = None
        self._finished = False
        self._final: Masks | None = None  # of a finished training
        self._optimizer: Optimizer | None = None

    def join(self) -> None:
        if self.run.features.keys() & {"masks"}:
            raise InputError(f"masks are fixed, and the gate {self.name!r} makes its own. Give one of the two.")
        if self.kind.needs_hooks and self.run.args.torch_compile:
            raise InputError(f"the hooks of the gate {self.name!r} go unheard in a compiled model: no torch_compile.")
        if "self_teaching" in self.run.features:
            refuse_renewal(self._settings)
        if self.kind.learns and self.run.has_scheduler:
            raise InputError(
                f"the gate {self.name!r} adds its scores to the optimizer, and a scheduler that was made before "
                "does not know them. Give optimizers=(optimizer, None), and lr_scheduler_type in the arguments."
            )

    def begin(self, state: State | None, step: int) -> None:
        run = self.run
        self.gate, self._final, self._finished = self._settings.build(run.model), None, False
        if self.gate.learns and run.processes > 1 and run.args.perturb_over == "micro-batch":
            raise InputError("a gate with scores needs perturb_over: window where several processes train.")
        self.gate.begin(run.total_steps, run.seed, state, step, run.objective)

    @property
    def masks(self) -> Masks | None:
        """Returns the pruned model's masks; while it trains, the held ones, which a swapping gate may still change."""
        if self._final is not None or self.gate is None or self.gate.held is None:
            return self._final
        return self.gate.masks()

    @property
    def ready(self) -> bool:
        """False before the sparsity is the one that training will end with."""
        return self.gate is None or self.gate.settled

    def param_groups(self) -> list[dict[str, Any]]:
        return [] if self.gate is None else self.gate.param_groups()

    @property
    def restarts_at(self) -> int | None:
        return self.gate.restarts_at if isinstance(self.gate, StructuralGate) else None

    @property
    def product(self) -> Any:
        """What is left of the model's structure, of a gate that decides on whole units."""
        gate: Any = self.gate
        return gate.kept() if self.name in METHODS else None

    def optimizer_made(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        enforce(self.gate.held if self.gate is not None else None, optimizer)
        if self.gate is None or self.gate.perturb is None:
            return
        if not isinstance(optimizer, FlatOptimizer) or not optimizer.rho_only_displaces:
            raise InputError(
                f"the gate's perturb {self.gate.perturb!r} says what an optimizer like SAM displaces, and "
                f"{type(optimizer).__name__} is not one. Leave it out, or choose sam."
            )
        if self.gate.perturb in ("scores", "none"):
            scores = {id(score) for score in self.gate.scores.values()}
            for group in optimizer.param_groups:
                if id(group["params"][0]) not in scores:
                    group["rho"] = 0.0

    def passes(self, weight: float, again: bool) -> Context:
        return self._begun.passes(weight)

    def terms_known(self, terms: Mapping[str, Tensor], weight: float) -> None:
        self._begun.differentiate(terms, weight)

    def gradients(self, lr: float, scale: float) -> None:
        if self._begun.held is not None:
            self._begun.held.mask_gradients()
        self._begun.observe(lr, scale)

    def weights_moved(self) -> None:
        if self._begun.held is not None:
            self._begun.held.mask_weights()

    def stepped(self, step: int) -> None:
        self._begun.advance(step)
        if isinstance(self.gate, StructuralGate) and step == self.gate.dense_steps:
            self._begin_to_learn(self.gate)

    def _begin_to_learn(self, gate: StructuralGate) -> None:
        assert self._optimizer is not None, "it steps"
        # Data parallel had gradients of 0 averaged until now, which an optimizer counts as steps.
        forget(self._optimizer, [p for group in gate.param_groups() for _, p in group["params"]])
        if gate.restart:
            forget(self._optimizer, [*self.run.model.parameters()])

    def logs(self, evaluated: bool) -> dict[str, float]:
        """Returns the gate's numbers and, of an evaluation, whether it can be the best as far as features know."""
        if not self._runs:
            return {}
        fellows = self.run.features.values()
        eligible = {"eligible": float(all(feature.ready for feature in fellows))} if evaluated else {}
        return self._begun.logs() | eligible

    def as_finished(self) -> Context:
        # The weights under a gate on activations stay as they are, also when training is complete.
        return self._begun.applied() if self._runs or isinstance(self.gate, StructuralGate) else nullcontext()

    def check(self) -> None:
        if self.masks is not None:
            self.masks.check(self.run.model)

    def state_dict(self) -> dict[str, Tensor]:
        return self._begun.state_dict()

    def load_state_dict(self, state: State, step: int) -> None:
        self._begun.load_state_dict(state, step)

    def finish(self) -> None:
        self._final, self._finished = self._begun.finish(), True

    @property
    def _runs(self) -> bool:
        """Whether a training has begun and is not finished."""
        return self.gate is not None and not self._finished

    @property
    def _begun(self) -> Gate:
        assert self.gate is not None, "begin() makes it"
        return self.gate


def refuse_renewal(gate: Settings) -> None:
    """Raises InputError for a gate whose model a copy of the student's weights, as a teacher, does not compute."""
    if issubclass(gate.member, StructuralGate):
        raise InputError(
            f"renew best makes a teacher of the student's weights, and the gate {gate.name!r} is not in them: it would "
            "be another model than the one that was evaluated. Leave renew out."
        )
