"""Measures the loss along lines through the space of weights, and the barrier between two models."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from trainflat.core.errors import InputError
from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector
from trainflat.records.landscape import LineRecord, Loss
from trainflat.sharpness.measure import is_number, is_whole
from trainflat.sharpness.paths import (
    AffineSubspace,
    Direction,
    State,
    check,
    check_states,
    given,
    loss_here,
    own_weights,
    put,
    rows_of,
    steps,
    weights_of,
)

Score = Callable[[nn.Module], float]


def barrier(
    objective: Objective,
    one: State,
    other: State,
    *,
    points: int = 11,
    names: tuple[str, str] = ("one", "other"),
    score: Score | None = None,
    score_name: str = "score",
) -> LineRecord:
    r"""Measures the loss along the line between two models, and its barrier (linear mode connectivity).

    Of the record, ``barrier`` is :math:`\max_a L(a) - ((1 - a) L(0) + a L(1))` over the points a in [0, 1] (Entezari et
    al., ICLR 2022), which is 0 where the loss falls straight from one model to the other; ``barrier_over_mean`` is
    :math:`\max_a L(a) - (L(0) + L(1)) / 2`, as Frankle et al. (ICML 2020, arXiv:1912.05671) define it, who take error
    rates: give these as ``score``. Both ends are measured at exactly their weights.

    Args:
        one, other: State dicts.
        points: Along the line, both ends among them.
        names: What the ends are called.
        score: Measured at every point too, with the weights in place; must leave the model as it is.
        score_name: Name and unit of it.

    Raises:
        InputError: models of different layers or shapes, weights that are not finite, or fewer than 3 points.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> wells = lambda model, batch: (model.weight.square() - 1).square().mean()  # minima at -1 and 1
        >>> objective = Objective(model, [{"x": torch.zeros(1)}], loss=wells)
        >>> barrier(objective, {"weight": torch.tensor([[-1.0]])}, {"weight": torch.tensor([[1.0]])}).barrier
        1.0
    """
    enough = is_whole(points) and points >= 3
    check(enough, f"a barrier takes at least one point between its two ends, so 3 in all, got points {points}.")
    check(names[0] != names[1], f"the two ends are both called {names[0]!r}. Give them two names.")
    line = loss_line(
        objective, {names[0]: one, names[1]: other}, size=points, margin=0, score=score, score_name=score_name
    )
    return line.model_copy(update={"name": "barrier"})


def loss_line(
    objective: Objective,
    points: Mapping[str, State] | None = None,
    *,
    direction: Direction | None = None,
    size: int = 21,
    margin: float = 0.3,
    span: float = 1.0,
    score: Score | None = None,
    score_name: str = "score",
) -> LineRecord:
    """Measures the loss along the line through two models (Goodfellow et al., 2015), or along a direction from one.

    Parameters that the objective does not name stay as the model has them. Under its masks every model counts as pruned
    by them, so that no pruned weight moves.

    Args:
        points: State dicts of exactly two models, by name; they stand at 0 and 1, and are measured at exactly
            their weights.
        direction: Instead of points, a direction with a tensor per weight of the objective; a random one is
            :func:`filter_normalised`.
        size: Points along the line, evenly; the two models come on top where they are not among these.
        margin: How far beyond the two models the line goes, as a share of their distance.
        span: With a direction, the line goes from ``-span`` to ``span`` times it.
        score: Measured at every point too, with the weights in place; must leave the model as it is.
        score_name: Name and unit of it.

    Raises:
        InputError: not two points, models of different layers or shapes, weights that are not finite, fewer than 2
            points, a margin below 0 or a span that is not above 0.
    """
    check(is_whole(size) and size >= 2, f"a line has a whole number of at least 2 points, got size {size}.")
    is_share = is_number(margin) and 0 <= margin < math.inf
    check(is_share, f"margin is a share of the distance, 0 or more, got {margin}.")
    check(is_number(span) and 0 < span < math.inf, f"span is how far to go along the direction, above 0, got {span}.")
    if points is not None and direction is None:
        return _survey(objective, _between_points(objective, points, size, margin), score, score_name)
    if direction is not None and points is None:
        line = AffineSubspace(objective, own_weights(objective), [given(objective, direction)])
        return _survey(objective, _Way(line, steps(-span, span, size), "times the direction"), score, score_name)
    raise InputError("a line goes through two points or along a direction: give the one or the other.")


@dataclass(frozen=True)
class _Way:
    """Describes the line to measure."""

    line: AffineSubspace
    positions: list[float]
    axis: str = ""
    ends: tuple[str, str] | None = None
    models: dict[float, Vector] = field(default_factory=dict)  # weights of the models at 0 and 1


def _between_points(objective: Objective, points: Mapping[str, State], size: int, margin: float) -> _Way:
    check_states(points)
    names = list(points)
    check(len(names) == 2, f"a line goes through exactly two points, got {len(names)}: {', '.join(names) or 'none'}.")
    one, other = (weights_of(objective, state, name) for name, state in points.items())
    line = AffineSubspace(objective, one, [[q - p for p, q in zip(one, other, strict=True)]])
    positions = sorted({*steps(0.0 - margin, 1.0 + margin, size), 0.0, 1.0})
    return _Way(line, positions, "", (names[0], names[1]), {0.0: one, 1.0: other})


def _survey(objective: Objective, way: _Way, score: Score | None, score_name: str) -> LineRecord:
    """Measures the models themselves, then the rest of the line in order."""
    found: dict[float, tuple[Loss, float | None]] = {}

    def measure() -> tuple[Loss, float | None]:
        return loss_here(objective), None if score is None else score(objective.model)

    with objective.taking("loss line", len(way.positions)):
        for position, weights in way.models.items():
            put(objective.weights, weights)
            found[position] = measure()
        way.line.enter()
        for position in way.positions:
            if position not in found:
                way.line.stand_at(position)
                found[position] = measure()
    scores = [value for _, value in map(found.__getitem__, way.positions) if value is not None]
    return LineRecord(
        name="line",
        measured_on=rows_of(objective.rows),
        positions=way.positions,
        losses=[found[position][0] for position in way.positions],
        ends=way.ends,
        scores=scores or None,
        score_name=score_name if scores else "",
        axis=way.axis,
    )
