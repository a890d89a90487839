"""Measures the loss along lines through the space of weights, and the barrier between two models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector
from trainflat.records.landscape import LineRecord, Loss
from trainflat.sharpness.directions import Direction, checked_direction
from trainflat.sharpness.measure import is_whole
from trainflat.sharpness.paths import AffineSubspace, check_extent, evenly_spaced, finite_loss, survey
from trainflat.sharpness.states import State, check_states, current_weights, require, weights_of

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

    The record's ``barrier`` is :math:`\max_a L(a) - ((1 - a) L(0) + a L(1))` over the points a in [0, 1] (Entezari et
    al., ICLR 2022), which is 0 where the loss falls straight from one model to the other. Its ``barrier_over_mean`` is
    :math:`\max_a L(a) - (L(0) + L(1)) / 2`, the instability of Frankle et al. (ICML 2020, arXiv:1912.05671), who take
    error rates for L: pass these as ``score``. Both ends are measured at exactly their weights.

    Args:
        one, other: State dicts.
        points: Number of points on the line, both ends included.
        names: Names of the two ends.
        score: Another figure to compute at every point, with the weights in place; must not change the model.
        score_name: Name and unit of the score.

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
    require(enough, f"a barrier takes at least one point between its two ends, so 3 in all, got points {points}.")
    require(names[0] != names[1], f"the two ends are both called {names[0]!r}. Give them two names.")
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

    Parameters that the objective does not name keep the values of the objective's model. Under its masks both models
    are pruned by them, so that no pruned weight moves.

    Args:
        points: State dicts of exactly two models, by name; they are at 0 and 1, and measured at exactly their weights.
        direction: Instead of points, a direction with a tensor per weight of the objective, such as a random one of
            :func:`filter_normalised`.
        size: Number of evenly spaced points; the two models are added if they are not among these.
        margin: Distance that the line extends beyond the two models, as a share of their distance.
        span: With a direction, the line extends from ``-span`` to ``span`` times it.
        score: Another figure to compute at every point, with the weights in place; must not change the model.
        score_name: Name and unit of the score.

    Raises:
        InputError: not two points, models of different layers or shapes, weights that are not finite, fewer than 2
            points, a margin below 0 or a span that is not above 0.
    """
    check_extent("a line", size, margin, span)
    if points is not None and direction is None:
        return _measure(objective, _between_points(objective, points, size, margin), score, score_name)
    if direction is not None and points is None:
        line = AffineSubspace(objective, current_weights(objective), [checked_direction(objective, direction)])
        way = _Line(line, evenly_spaced(-span, span, size), "times the direction")
        return _measure(objective, way, score, score_name)
    raise InputError("a line goes through two points or along a direction: give the one or the other.")


@dataclass(frozen=True)
class _Line:
    """Describes the line to measure."""

    line: AffineSubspace
    positions: list[float]
    axis: str = ""
    ends: tuple[str, str] | None = None
    models: dict[float, Vector] = field(default_factory=dict)  # weights of the models at 0 and 1


def _between_points(objective: Objective, points: Mapping[str, State], size: int, margin: float) -> _Line:
    check_states(points)
    names = list(points)
    require(len(names) == 2, f"a line goes through exactly two points, got {len(names)}: {', '.join(names) or 'none'}.")
    one, other = (weights_of(objective, state, name) for name, state in points.items())
    line = AffineSubspace(objective, one, [[q - p for p, q in zip(one, other, strict=True)]])
    # The models at 0 and 1 are added even if the spacing misses them, since a barrier is measured above their losses.
    positions = sorted({*evenly_spaced(0.0 - margin, 1.0 + margin, size), 0.0, 1.0})
    return _Line(line, positions, "", (names[0], names[1]), {0.0: one, 1.0: other})


def _measure(objective: Objective, way: _Line, score: Score | None, score_name: str) -> LineRecord:
    def measure() -> tuple[Loss, float | None]:
        return finite_loss(objective), None if score is None else score(objective.model)

    found: dict[float, tuple[Loss, float | None]] = {}
    places = {x: (x,) for x in way.positions}
    survey(objective, "loss line", way.line, models=way.models, places=places, measure=measure, found=found)
    losses, values = zip(*(found[position] for position in way.positions), strict=True)
    scores = [value for value in values if value is not None]
    return LineRecord(
        name="line",
        measured_on=plural(objective.rows, "row", form=","),
        positions=way.positions,
        losses=list(losses),
        ends=way.ends,
        scores=scores or None,
        score_name=score_name if scores else "",
        axis=way.axis,
    )
