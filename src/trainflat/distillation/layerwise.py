"""Computes losses between hidden states of a student's and a teacher's layers, which it matches and maps.

After CoFi (Xia, Zhong and Chen, ACL 2022, arXiv:2204.00408), section 3.2: over chosen teacher layers i, the sum of
``MSE(W h_student(m(i)), h_teacher(i))``, where m(i) is the student layer that fits and W a learned map.

Layers are numbered as transformers numbers ``hidden_states``: 0 is what the first layer reads, L the last of L layers.
Shape suffixes: B batch, T tokens, H width of hidden states.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import plural
from trainflat.core.settings import Check, Number, Settings, Word, not_written
from trainflat.distillation.losses import wide
from trainflat.distillation.matching import Match, Matching, draw_layers, nearest, ordered, same_depth
from trainflat.distillation.state_maps import Map, StateMaps

Padding = Literal["exclude", "include"]
_CHOSEN = 4  # teacher layers by default, as in CoFi


class Shape(NamedTuple):
    """Holds the number of a model's layers and the width of its hidden states."""

    depth: int
    width: int


def state_losses(student_BTH: Tensor, teacher_BTH: Tensor, tokens_BT: Tensor | None = None) -> Tensor:
    """Computes the mean squared difference of two layers' hidden states for every row [B], in float32 at least.

    Args:
        student_BTH: Hidden states of a student's layer, in the teacher's width.
        teacher_BTH: Hidden states of a teacher's layer.
        tokens_BT: Attention mask; padding is left out of the mean. None counts all positions, as CoFi's code does.
    """
    # A mean over each row's own tokens, not over the batch's: rows weigh alike, as in the losses of logits, and a batch
    # that is cut into micro-batches has the same loss. With all positions counted it is CoFi's mean over the batch.
    squares_BT = torch.square(wide(student_BTH) - wide(teacher_BTH)).mean(-1)
    if tokens_BT is None:
        return squares_BT.mean(-1)
    padding = tokens_BT == 0
    return squares_BT.masked_fill(padding, 0).sum(-1) / (~padding).sum(-1).clamp_min(1)


def layerwise_loss(
    students_BTH: Sequence[Tensor],
    teachers_BTH: Sequence[Tensor],
    matching: Literal["nearest", "ordered"] = "ordered",
    alive: Sequence[bool] | None = None,
    tokens_BT: Tensor | None = None,
) -> Tensor:
    """Returns the sum over teacher layers of the mean of :func:`state_losses` to the student layer that fits.

    Args:
        students_BTH: Hidden states of the student's layers, in order and in the teacher's width.
        teachers_BTH: Hidden states of chosen layers of the teacher, in order.
        matching: ``"nearest"`` or ``"ordered"``; see the functions of these names.
        alive: Which student layers still compute something; None is all of them.
        tokens_BT: Attention mask, as for :func:`state_losses`.

    Example:
        >>> states = [torch.full((1, 2, 3), float(layer)) for layer in range(4)]
        >>> layerwise_loss(states, [states[1] + 0.5, states[3]], alive=[True, True, True, False]).item()
        1.25
    """
    table = _table(lambda _, number: students_BTH[number - 1], teachers_BTH, len(students_BTH), tokens_BT)
    match = nearest(table) if matching == "nearest" else ordered(table, alive or [True] * len(students_BTH))
    pairs = [state_losses(students_BTH[number - 1], teachers_BTH[place], tokens_BT) for place, number in match.items()]
    return torch.stack(pairs).sum(0).mean() if pairs else teachers_BTH[0].new_zeros(())


@torch.no_grad()
def _table(
    student: Callable[[int, int], Tensor], teachers: Sequence[Tensor], depth: int, tokens: Tensor | None
) -> list[list[float]]:
    """Computes the mean loss of every teacher layer to every student layer.

    Args:
        student: Returns what a teacher layer's place and a student layer's number are compared by.
        teachers: Hidden states of the chosen layers.
        depth: Number of the student's layers.
        tokens: Attention mask.
    """
    rows = [
        torch.stack([state_losses(student(place, number), teacher, tokens).mean() for number in range(1, depth + 1)])
        for place, teacher in enumerate(teachers)
    ]
    table: list[list[float]] = torch.stack(rows).tolist()  # once, as a GPU is waited for
    return table


class _Layers(Check):
    """Accepts None, or ascending numbers of layers."""

    def read(self, name: str, value: Any) -> list[int] | None:
        if value is None:
            return None
        given = list(value) if isinstance(value, list | tuple) else []
        whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in given)
        if not given or not whole or given != sorted(set(given)):
            raise InputError(f"{name} are ascending numbers of layers, such as [3, 6, 9, 12], got {value!r}.")
        return given


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


class Layerwise(Configurable):
    r"""Declares the options of layerwise distillation.

    The loss is ``(1 - weight)`` times what it was before, of labels and a teacher's logits, plus ``weight`` times the
    sum of the matched layers' losses. CoFi's :math:`\lambda L_{layer} + (1 - \lambda) L_{pred}`, which knows no labels,
    is ``weight`` = λ beside a distillation of ``weight: 1``.

    Args:
        weight: Share of the layers in the loss, in [0, 1]; 0.9, 0.7 and 0.5 in CoFi's scripts.
        teacher_layers: Numbers of the teacher's layers; None is four of them, evenly spaced, the last one included:
            3, 6, 9 and 12 of 12. 0, the embeddings, is for ``fixed`` alone.
        matching: ``"nearest"`` and ``"ordered"`` match anew in every pass; ``"fixed"`` takes the student's layer at the
            same relative depth where it is alive (version 2 of CoFi's code; GRAIN, Yang, Cui and Wang, 2022);
            ``"random-windows"`` draws the teacher layers of each step, and matches as ``"ordered"`` does.
        padding: ``"exclude"`` leaves padding out, so that a loss does not depend on how far a batch was padded;
            ``"include"`` is as published.
        map: ``"shared"``: one learned linear map of the student's hidden states for all teacher layers, the identity at
            first (CoFi); ``"separate"``: one for each (GRAIN); ``"none"``: the states as they are.

    Raises:
        InputError: a value is outside its range, or layer 0 is to be matched by its loss.

    Example:
        >>> Layerwise(matching="nearest").layers_of(12), Layerwise(teacher_layers=[2, 6]).layers_of(6)
        ([3, 6, 9, 12], [2, 6])
    """

    weight: Annotated[float, Number("is the layers' share of the loss, in [0, 1]", _is_share)] = 0.9
    teacher_layers: Annotated[list[int] | None, _Layers()] = None
    matching: Annotated[Matching, Word(get_args(Matching))] = "ordered"
    padding: Annotated[Padding, Word(get_args(Padding))] = "exclude"
    map: Annotated[Map, Word(get_args(Map))] = "shared"

    @classmethod
    def resolve(cls, **options: Any) -> dict[str, Any]:
        """Refuses layer 0 where layers are matched by their losses."""
        layers = options["teacher_layers"]
        if layers and layers[0] == 0 and options["matching"] != "fixed":
            raise InputError(
                f"teacher_layers names 0, the embeddings, which matching {options['matching']} does not compare. Leave "
                "it out, or choose fixed."
            )
        return {}

    def layers_of(self, depth: int) -> list[int]:
        """Returns the numbers of the chosen layers of a teacher with so many.

        Raises:
            InputError: it does not have them all.
        """
        if self.teacher_layers is None:
            count = min(_CHOSEN, depth)
            return [same_depth(k, count, depth) for k in range(1, count + 1)]
        if self.teacher_layers[-1] > depth:
            raise InputError(
                f"teacher_layers are {self.teacher_layers}, and the teacher has {plural(depth, 'layer')}. Name layers "
                "that it has, or leave them out."
            )
        return self.teacher_layers

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Checks that a teacher fits a student.

        Raises:
            InputError: it has not the layers that are named, or without a map another width.
        """
        self.layers_of(teacher.depth)
        if self.map == "none" and student.width != teacher.width:
            raise InputError(
                f"the teacher's hidden states have width {teacher.width}, the student's {student.width}. Learn a map: "
                "set map to shared."
            )


class _WithMaps(Settings):
    """Adds maps to begin with, of an earlier training and maybe cut, to the options; no recipe has them."""

    start: Any = not_written(None)

    @property
    def options(self) -> dict[str, Any]:
        return {key: value for key, value in dict(self).items() if key != "start"}


_OPTIONS = inspect.signature(Layerwise).parameters
LayerwiseSettings = _WithMaps.made(
    "layerwise", Layerwise, {name: (one.annotation, one.default) for name, one in _OPTIONS.items()}
)


def read_layerwise(section: Any) -> Settings:
    """Reads a section of layerwise distillation: a mapping of the options of :class:`Layerwise`, or True for defaults.

    Raises:
        UnknownName: an option that does not exist.
        InputError: a value that cannot be used.

    Example:
        >>> read_layerwise({"weight": 0.5}).dump()["weight"], read_layerwise(True).dump()["matching"]
        (0.5, 'ordered')
    """
    if isinstance(section, Settings):
        return section
    given = {} if section is True else section
    if not isinstance(given, Mapping):
        raise InputError(f"layerwise is a mapping of options, such as {{weight: 0.9}}, got {section!r}.")
    for key in given:
        if key not in _OPTIONS:
            raise UnknownName("option of layerwise", str(key), _OPTIONS)
    read = LayerwiseSettings.of(given)
    read.build()  # refuses what does not go together
    return read


class LayerwiseLoss(nn.Module):
    """Computes the loss of matched layers, with the maps that it learns.

    Args:
        options: Of layerwise distillation.
        student: Depth and width of the student.
        teacher: Depth and width of the teacher.
        like: A parameter of the student, for its device and type.
    """

    def __init__(self, options: Layerwise, student: Shape, teacher: Shape, like: Tensor) -> None:
        super().__init__()
        options.check_shapes(student, teacher)
        self.options, self.student, self.teacher = options, student, teacher
        self.chosen = options.layers_of(teacher.depth)
        self.maps = StateMaps(options.map, len(self.chosen), student.width, teacher.width, like)

    def layers(self, *keys: int) -> list[int]:
        """Returns the teacher layers of a step; what is drawn depends on the keys, seed and step, alone."""
        return draw_layers(self.chosen, *keys) if self.options.matching == "random-windows" else self.chosen

    def forward(
        self,
        students_BTH: Sequence[Tensor],
        teachers_BTH: Sequence[Tensor],
        alive: Sequence[bool],
        tokens_BT: Tensor | None = None,
    ) -> tuple[Tensor, Match]:
        """Returns the sum of the matched layers' losses of every row [B], and the match.

        Args:
            students_BTH: Hidden states of the student from layer 0 on, in its own width.
            teachers_BTH: Hidden states of the teacher layers of :meth:`layers`.
            alive: Which student layers, from layer 1, still compute something.
            tokens_BT: Attention mask.
        """
        tokens = tokens_BT if self.options.padding == "exclude" else None
        # A shared map's output serves all places: each layer is mapped once, and only matched ones get gradients, whose
        # graph is built here, though they are first compared without one.
        several, with_graph = len(self.maps.linears) > 1, torch.is_grad_enabled()

        @cache
        def mapped(place: int, number: int) -> Tensor:
            with torch.set_grad_enabled(with_graph):
                states: Tensor = self.maps(students_BTH[number], place)
            return states

        def student(place: int, number: int) -> Tensor:
            return mapped(place if several else 0, number)

        match = self._match(student, teachers_BTH, alive, tokens)
        pairs = [state_losses(student(place, number), teachers_BTH[place], tokens) for place, number in match.items()]
        return sum(pairs, students_BTH[0].new_zeros(len(students_BTH[0]))), match

    def _match(
        self,
        student: Callable[[int, int], Tensor],
        teachers: Sequence[Tensor],
        alive: Sequence[bool],
        tokens: Tensor | None,
    ) -> Match:
        if self.options.matching == "fixed":
            numbers = [same_depth(layer, self.teacher.depth, self.student.depth) for layer in self.chosen]
            return {place: number for place, number in enumerate(numbers) if not number or alive[number - 1]}
        table = _table(student, teachers, self.student.depth, tokens)
        return nearest(table) if self.options.matching == "nearest" else ordered(table, alive)
