"""Distils hidden states of layers into the student, from the teacher of the feature `distillation`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.anatomy import FAMILIES, anatomy_of, model_type
from trainflat.anatomy.hidden_states import alive_layers, depth_of, recorded_states
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.settings import Settings
from trainflat.distillation import Layerwise, LayerwiseLoss, Shape, read_layerwise
from trainflat.training.features.base import ADDED, Feature, State
from trainflat.training.features.self_teacher import SelfTeacher

# The teacher's hidden states travel with their micro-batch, as its logits do.
_HEARD = ADDED + "layer."
_MATCHES = "matches"


class LayerwiseFeature(Feature):
    """Adds the distance between matched hidden states of student and teacher to the loss, and learns its maps.

    The loss becomes ``(1 - weight)`` times what distillation made of it, plus ``weight`` times the layers' part, which
    is logged as ``loss_layerwise``. Layers are matched in every pass over every micro-batch, on each process by its own
    rows, as CoFi's code does in every forward pass; so with a match that is not ``fixed`` two micro-batches may match
    otherwise than both together. Layers count as alive that have a head or a feed-forward unit left, in the model or,
    beside a gate that draws whole structures, in its current draw.

    Maps are parameters of the optimizer, with the model's learning rate, schedule and clipping; weight decay, which
    would pull them from the identity to zero, and perturbations, which ask how flat the model lies, leave them alone.

    Args:
        settings: A mapping of options such as ``{"weight": 0.9, "matching": "ordered"}``, or True for the defaults; see
            :class:`trainflat.distillation.Layerwise`. Settings whose ``start`` is another training's ``product``, cut
            by :func:`trainflat.distillation.cut_maps` if the student was shrunk since, go on with its maps.

    Raises:
        InputError: options that cannot be used; no teacher, or one whose layers or width do not fit.
    """

    file = "layerwise.safetensors"
    state_name = "layerwise distillation"

    def __init__(self, settings: Any) -> None:
        read = read_layerwise(settings)
        self._options: Layerwise = read.build()
        self._start: State | None = read.start
        self._loss: LayerwiseLoss | None = None
        self._step, self._again = 0, False
        self._student: list[Tensor] = []  # hidden states of the current pass
        self._heard: list[Tensor] = []  # the teacher's, of the latest micro-batch
        self._alive: list[bool] = []  # the layers that a shrunk model has left; a gate knows better
        self._matches: Counter[tuple[int, int]] = Counter()

    @classmethod
    def read(cls, section: Any) -> Settings:
        return read_layerwise(section)

    @classmethod
    def write(cls, settings: Settings) -> Any:
        return settings.dump()

    @classmethod
    def check_teacher(
        cls, settings: Settings, student: nn.Module, teacher: nn.Module, fellows: Mapping[str, Any]
    ) -> None:
        renewed = SelfTeacher.settings_in(fellows, "self_teaching")
        _check_shapes(settings.build(), shape_of(student), shape_of(teacher), renewed=renewed)

    def join(self) -> None:
        fellow: Any = self.run.features.get("distillation")
        if fellow is None:
            raise InputError(
                "layerwise learns from the layers of a teacher, and there is none. Give distillation a teacher, with "
                "weight 0 if its logits are not to be learned from."
            )
        if self._options.map != "none" and self.run.has_scheduler:
            raise InputError(
                "layerwise adds its maps to the optimizer, and a scheduler that was made before does not know them. "
                "Give optimizers=(optimizer, None), and lr_scheduler_type in the arguments; or set map to none."
            )
        renewed = "self_teaching" in self.run.features
        _check_shapes(self._options, shape_of(self.run.model), shape_of(fellow.teacher), renewed=renewed)
        fellow.listen(self._listening)

    @contextmanager
    def _listening(self, teacher: nn.Module) -> Iterator[None]:
        with recorded_states(teacher) as states:
            yield
            self._heard = [states[layer].detach() for layer in self._layers()]

    def begin(self, state: State | None, step: int) -> None:
        teacher: Any = self.run.features["distillation"]
        like = next(self.run.model.parameters())
        self._loss = LayerwiseLoss(self._options, shape_of(self.run.model), shape_of(teacher.teacher), like)
        self._alive, self._matches, self._step = alive_layers(self.run.model), Counter(), step
        if self._start is not None:
            self._load_maps(self._start)
        super().begin(state, step)

    @property
    def product(self) -> dict[str, Tensor]:
        """The maps that were learned, for a later training of the same student or a smaller one."""
        return {name: p.detach().clone() for name, p in self._begun.named_parameters()}

    def param_groups(self) -> list[dict[str, Any]]:
        named = [] if self._loss is None else list(self._loss.named_parameters())
        return [{"params": named, "weight_decay": 0.0, "rho": 0.0, "reduce": True}] if named else []

    def batch(self, inputs: dict[str, Any]) -> dict[str, Any]:
        heard, self._heard = self._heard, []  # distillation, before this in the table, has just asked the teacher
        return inputs | {f"{_HEARD}{place}": states for place, states in enumerate(heard)}

    @contextmanager
    def passes(self, weight: float, again: bool) -> Iterator[None]:
        with recorded_states(self.run.model) as self._student:
            self._again = again
            yield
        self._student = []

    def terms(
        self, terms: dict[str, Tensor], outputs: Any, inputs: Mapping[str, Any], weight: float
    ) -> dict[str, Tensor]:
        losses, match = self._matched(inputs)
        if not self._again:
            layers = self._layers()
            self._matches.update((layers[place], number) for place, number in match.items())
        task, share = terms["task"], self._options.weight
        return terms | {"task": (1 - share) * task, "layerwise": share * losses.mean().to(task.dtype)}

    def row_losses(self, losses: Tensor, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        share = self._options.weight
        return (1 - share) * losses + share * self._matched(inputs)[0].to(losses.dtype)

    def _matched(self, inputs: Mapping[str, Any]) -> tuple[Tensor, dict[int, int]]:
        teacher = [inputs[f"{_HEARD}{place}"] for place in range(len(self._layers()))]
        tokens = inputs.get("attention_mask")
        found: tuple[Tensor, dict[int, int]] = self._begun(self._student, teacher, self._living(), tokens)
        return found

    def _living(self) -> list[bool]:
        gate: Any = getattr(self.run.features.get("gate"), "gate", None)
        asked = getattr(gate, "alive", None)
        found = self._alive if asked is None else list(asked())
        return found * (len(self._alive) // len(found))  # a gate lists layers that share their tensors once

    def _layers(self) -> list[int]:
        """Returns the teacher's layers of the current step."""
        return self._begun.layers(self.run.seed, self._step)

    def stepped(self, step: int) -> None:
        self._step = step

    def state_dict(self) -> dict[str, Tensor]:
        counted = [[*pair, count] for pair, count in sorted(self._matches.items())]
        return self.product | {_MATCHES: torch.tensor(counted, dtype=torch.long).view(-1, 3)}

    @torch.no_grad()
    def load_state_dict(self, state: State, step: int) -> None:
        self._matches = Counter({(layer, number): count for layer, number, count in state[_MATCHES].tolist()})
        self._load_maps(state)

    def load_best(self, state: State, step: int) -> None:
        """Takes the maps alone: the record counts the matches of all steps."""
        self._load_maps(state)

    @torch.no_grad()
    def _load_maps(self, state: State) -> None:
        own = dict(self._begun.named_parameters())
        for name in {**own, **state}.keys() - {_MATCHES}:
            if name not in own or name not in state or own[name].shape != state[name].shape:
                raise InputError(f"the maps of layers are of another training: {name} differs. Resume with the same.")
            own[name].copy_(state[name])

    def record(self) -> dict[str, Any]:
        """How often each teacher layer was matched with each layer of the student, as ``{"3": {"2": 120}}``."""
        found: dict[str, dict[str, int]] = {}
        for (layer, number), count in sorted(self._matches.items()):
            found.setdefault(str(layer), {})[str(number)] = count
        return {"layerwise": {"matches": found}}

    @property
    def _begun(self) -> LayerwiseLoss:
        assert self._loss is not None, "begin() makes it"
        return self._loss


def _check_shapes(options: Layerwise, student: Shape, teacher: Shape, *, renewed: bool) -> None:
    options.check_shapes(student, teacher)
    if renewed and student != teacher:
        raise InputError(
            f"renew best puts the student, of {plural(student.depth, 'layer')} of width {student.width}, in the "
            f"place of a teacher of {plural(teacher.depth, 'layer')} of width {teacher.width}, which layerwise "
            "then cannot compare. Leave out one of the two, or choose a teacher of the student's shape."
        )


def shape_of(model: nn.Module) -> Shape:
    """Returns the depth and the width of a model.

    Raises:
        InputError: its architecture is not known.
    """
    if model_type(model) not in FAMILIES:
        raise InputError(
            f"layerwise compares hidden states of known architectures, and {model_type(model) or type(model).__name__} "
            f"is none of them: {', '.join(FAMILIES)}. Choose another model, or leave layerwise out."
        )
    return Shape(depth_of(model), anatomy_of(model).hidden_size)
