"""Measures the loss over planes through the space of weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from trainflat.core.errors import InputError, UnknownName
from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector
from trainflat.records.landscape import Loss, PlaneRecord, SpectrumRecord
from trainflat.sharpness.measure import is_number, is_whole
from trainflat.sharpness.paths import (
    AffineSubspace,
    Direction,
    State,
    check,
    check_states,
    given,
    head_names,
    loss_here,
    on_one_line,
    own_weights,
    put,
    rows_of,
    standing,
    steps,
    through,
    value_in,
    weights_of,
)
from trainflat.sharpness.spectrum import SpectralDensity
from trainflat.sharpness.store import Store, fingerprint

Place = tuple[float, float]


def loss_plane(
    objective: Objective,
    points: Mapping[str, State] | None = None,
    *,
    directions: tuple[Direction, Direction] | None = None,
    head: str | None = None,
    size: int = 21,
    margin: float = 0.3,
    span: float = 1.0,
    store: Path | None = None,
) -> PlaneRecord:
    r"""Measures the loss on a grid over the plane through three models, or along two directions from one model.

    The plane of Na, Mehta and Strubell (2022, figure 6) goes through w_init, w_adam and w_sam. Here its basis is
    orthonormal, by Gram and Schmidt in float64 from the first point, and coordinates are L2 distances. Theirs is
    spanned by the encoder and drawn twice, every point with the task head trained with w_adam and then with that of
    w_sam: see ``head``. The three models themselves are measured too, at exactly their weights.

    Takes ``size ** 2 + 3`` passes over the rows, and four times the memory of the weights. Parameters that the
    objective does not name stay as the model has them; buffers (none of a transformer's are learned) do so too. Under
    the objective's masks every model counts as pruned by them, so that no pruned weight moves.

    Args:
        points: State dicts of exactly three models, by name. The first is the origin.
        directions: Instead of points, two directions from the model's own weights, each with a tensor per weight of
            the objective; for random ones see :func:`filter_normalised`. Taken as they are, not made orthogonal.
        head: The name of the point whose task head every point has, so that the other weights span the plane; None if
            the head belongs to the plane.
        size: Grid points along each side.
        margin: How far the grid goes beyond the three points, as a share of their extent along each axis.
        span: The grid goes from ``-span`` to ``span`` times each direction.
        store: A file that keeps each loss as soon as it is measured: called again after a crash, this function goes on
            there, with the same bits as if nothing had happened.

    Raises:
        InputError: not three points or two directions, all on one line, models of different layers or shapes, weights
            that are not finite, fewer than 2 grid points a side, a margin below 0 or a span that is not above 0, or a
            store of another plane.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> objective = Objective(model, [{"x": torch.eye(2)}], loss=lambda m, batch: m(batch["x"]).square().mean())
        >>> corners = {"a": [0.0, 0.0], "b": [2.0, 0.0], "c": [0.0, 2.0]}
        >>> plane = loss_plane(
        ...     objective, {k: {"weight": torch.tensor([w])} for k, w in corners.items()}, size=3, margin=0.0
        ... )
        >>> plane.losses
        [[0.0, 0.5, 2.0], [0.5, 1.0, 2.5], [2.0, 2.5, 4.0]]
    """
    check(is_whole(size) and size >= 2, f"a side of the grid has a whole number of at least 2 points, got size {size}.")
    is_share = is_number(margin) and 0 <= margin < math.inf
    check(is_share, f"margin is a share of the points' extent, 0 or more, got {margin}.")
    check(is_number(span) and 0 < span < math.inf, f"span is how far to go along the directions, above 0, got {span}.")
    check(directions is None or head is None, f"head {head!r} names one of three points, and directions have none.")
    if points is not None and directions is None:
        return _survey(objective, _through_points(objective, points, head, size, margin), store)
    if directions is not None and points is None:
        return _survey(objective, _along(objective, directions, steps(-span, span, size)), store)
    raise InputError("a plane goes through three points or along two directions: give the one or the other.")


def spectrum_record(found: SpectralDensity, top: Sequence[float] = ()) -> SpectrumRecord:
    """Converts a spectral density to the record that reports draw; ``top`` are the largest eigenvalues, if known."""
    return SpectrumRecord(
        name="spectrum",
        measured_on=rows_of(found.effort.rows),
        eigenvalues=found.grid.tolist(),
        density=found.density.tolist(),
        width=found.width,
        top=sorted(top, reverse=True),
        probes=found.probes,
        steps=found.steps,
    )


@dataclass(frozen=True)
class _Grid:
    """Describes the grid to measure."""

    plane: AffineSubspace
    x: list[float]
    y: list[float]
    axes: tuple[str, str]
    places: dict[str, Place] = field(default_factory=dict)  # coordinates of the models in the plane
    models: dict[str, Vector] = field(default_factory=dict)  # their weights
    head: dict[str, Tensor] = field(default_factory=dict)  # of every point
    head_of: str = ""


def _through_points(
    objective: Objective, points: Mapping[str, State], head: str | None, size: int, margin: float
) -> _Grid:
    check_states(points)
    names = ", ".join(points)
    check(len(points) == 3, f"a plane goes through exactly three points, got {len(points)}: {names or 'none'}.")
    fixed = {} if head is None else _head(objective.model, points, head)
    models = {name: weights_of(objective, state, name, fixed) for name, state in points.items()}
    u, v, places = through(list(models.values()), list(models))
    x, y = (_side([place[k] for place in places], margin, size) for k in (0, 1))
    plane = AffineSubspace(objective, next(iter(models.values())), (u, v))
    axes = ("distance (L2)", "distance (L2)")
    return _Grid(plane, x, y, axes, dict(zip(models, places, strict=True)), models, fixed, head or "")


def _along(objective: Objective, directions: tuple[Direction, Direction], along: list[float]) -> _Grid:
    check(len(directions) == 2, f"a plane goes along exactly two directions, got {len(directions)}.")
    fitting = [given(objective, direction) for direction in directions]
    plane = AffineSubspace(objective, own_weights(objective), fitting)
    check(not on_one_line(*plane.directions), "the two directions are on one line, so that they span no plane.")
    return _Grid(plane, along, along, ("times the first direction", "times the second direction"))


def _head(model: nn.Module, points: Mapping[str, State], name: str) -> dict[str, Tensor]:
    if name not in points:
        raise UnknownName("point", name, points, "head")
    return {key: value_in(points[name], key, model.get_parameter(key), name) for key in head_names(model)}


def _side(coordinates: list[float], margin: float, size: int) -> list[float]:
    low, high = min(coordinates), max(coordinates)
    return steps(low - margin * (high - low), high + margin * (high - low), size)


def _survey(objective: Objective, grid: _Grid, path: Path | None) -> PlaneRecord:
    """Measures the models themselves, then the grid row by row."""
    store = Store(path, _work(objective, grid) if path else "")
    missing = len(grid.models) + len(grid.x) * len(grid.y) - len(store.found)

    def of(weights: Vector) -> Loss:
        put(objective.weights, weights)
        return loss_here(objective)

    def at(x: float, y: float) -> Loss:
        grid.plane.stand_at(x, y)
        return loss_here(objective)

    with objective.taking("loss plane", missing), standing(objective.model, grid.head):
        own = {name: store.get(f"model {name}", partial(of, weights)) for name, weights in grid.models.items()}
        grid.plane.enter()
        rows = list(enumerate(grid.y))
        losses = [[store.get(f"{i},{k}", partial(at, x, y)) for k, x in enumerate(grid.x)] for i, y in rows]
    return PlaneRecord(
        name=f"plane-head-{grid.head_of}" if grid.head_of else "plane",
        measured_on=rows_of(objective.rows),
        x=grid.x,
        y=grid.y,
        losses=losses,
        points=grid.places,
        point_losses=own,
        head=grid.head_of,
        axes=grid.axes,
    )


def _work(objective: Objective, grid: _Grid) -> str:
    """Hashes all that the losses depend on; of the loss function only its name."""
    model, loss = objective.model, objective.loss
    texts = [type(model).__qualname__, str(getattr(loss, "__qualname__", loss)), *objective.names, *grid.places]
    texts += [str((grid.x, grid.y, grid.places, grid.head_of)), *(key for batch in objective.batches for key in batch)]
    inside = {id(w) for w in objective.weights}
    others = [t for t in (*model.parameters(), *model.buffers()) if id(t) not in inside]
    data = [tensor for batch in objective.batches for tensor in batch.values()]
    basis = [tensor for side in (grid.plane.origin, *grid.plane.directions) for tensor in side]
    return fingerprint(texts, [*basis, *grid.head.values(), *others, *data])
