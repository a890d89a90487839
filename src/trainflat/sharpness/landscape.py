"""Measures the loss over planes through the space of weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.objective.base import Objective
from trainflat.objective.vectors import Vector
from trainflat.records.landscape import PlaneRecord
from trainflat.sharpness.directions import Direction, are_collinear, checked_direction, orthonormal_basis
from trainflat.sharpness.paths import AffineSubspace, check_extent, evenly_spaced, finite_loss, survey
from trainflat.sharpness.states import (
    State,
    check_states,
    current_weights,
    head_of,
    parameters_set,
    require,
    weights_of,
)
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
    orthonormal, by Gram-Schmidt in float64 from the first point, and coordinates are L2 distances. The paper spans the
    plane by the encoder and draws it twice, every point with the task head trained with w_adam and then with the one
    trained with w_sam: see ``head``. The three models themselves are measured too, at exactly their weights.

    Costs ``size ** 2 + 3`` passes over the rows, and four times the memory of the weights. Parameters that the
    objective does not name, and buffers, keep the values of the objective's model. Under the objective's masks all
    three models are pruned by them, so that no pruned weight moves.

    Args:
        points: State dicts of exactly three models, by name. The first is the origin.
        directions: Instead of points, two directions from the model's current weights, each with a tensor per weight
            of the objective; for random ones see :func:`filter_normalised`. They are not orthogonalized.
        head: Name of the point whose task head every point gets, so that the other weights span the plane; by default
            the head is one of the weights that do.
        size: Grid points per side.
        margin: Distance that the grid extends beyond the three points, as a share of their extent along each axis.
        span: With directions, the grid extends from ``-span`` to ``span`` times each.
        store: JSON file that keeps each loss as soon as it is measured. Called again after a crash, this function
            continues from it, with the same bits as an uninterrupted call.

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
    check_extent("a side of the grid", size, margin, span)
    require(directions is None or head is None, f"head {head!r} names one of three points, and directions have none.")
    if points is not None and directions is None:
        return _measure(objective, _through_points(objective, points, head, size, margin), store)
    if directions is not None and points is None:
        return _measure(objective, _along(objective, directions, evenly_spaced(-span, span, size)), store)
    raise InputError("a plane goes through three points or along two directions: give the one or the other.")


@dataclass(frozen=True)
class _Grid:
    """Describes the grid to measure."""

    plane: AffineSubspace
    x: list[float]
    y: list[float]
    axes: tuple[str, str]
    points: dict[str, Place] = field(default_factory=dict)  # coordinates of the models in the plane
    models: dict[str, Vector] = field(default_factory=dict)  # weights of the models
    head: dict[str, Tensor] = field(default_factory=dict)  # the task head that every point gets
    head_name: str = ""


def _through_points(
    objective: Objective, points: Mapping[str, State], head: str | None, size: int, margin: float
) -> _Grid:
    check_states(points)
    names = ", ".join(points)
    require(len(points) == 3, f"a plane goes through exactly three points, got {len(points)}: {names or 'none'}.")
    shared = {} if head is None else head_of(objective.model, points, head)
    models = {name: weights_of(objective, state, name, shared) for name, state in points.items()}
    u, v, places = orthonormal_basis(list(models.values()), list(models))
    x, y = (_side([place[k] for place in places], margin, size) for k in (0, 1))
    # Distances of pruned models are among the surviving weights, since weights_of has applied the masks.
    plane = AffineSubspace(objective, next(iter(models.values())), (u, v))
    axes = ("distance (L2)", "distance (L2)")
    return _Grid(plane, x, y, axes, dict(zip(models, places, strict=True)), models, shared, head or "")


def _side(coordinates: list[float], margin: float, size: int) -> list[float]:
    low, high = min(coordinates), max(coordinates)
    return evenly_spaced(low - margin * (high - low), high + margin * (high - low), size)


def _along(objective: Objective, directions: tuple[Direction, Direction], along: list[float]) -> _Grid:
    require(len(directions) == 2, f"a plane goes along exactly two directions, got {len(directions)}.")
    fitting = [checked_direction(objective, direction) for direction in directions]
    plane = AffineSubspace(objective, current_weights(objective), fitting)
    require(not are_collinear(*plane.directions), "the two directions are on one line, so that they span no plane.")
    return _Grid(plane, along, along, ("times the first direction", "times the second direction"))


def _measure(objective: Objective, grid: _Grid, path: Path | None) -> PlaneRecord:
    found = Store(path, _work(objective, grid) if path else "")
    models = {f"model {name}": weights for name, weights in grid.models.items()}
    places = {f"{i},{k}": (x, y) for i, y in enumerate(grid.y) for k, x in enumerate(grid.x)}
    with parameters_set(objective.model, grid.head):
        measure = partial(finite_loss, objective)
        survey(objective, "loss plane", grid.plane, models=models, places=places, measure=measure, found=found)
    return PlaneRecord(
        name=f"plane-head-{grid.head_name}" if grid.head_name else "plane",
        measured_on=plural(objective.rows, "row", form=","),
        x=grid.x,
        y=grid.y,
        losses=[[found[f"{i},{k}"] for k in range(len(grid.x))] for i in range(len(grid.y))],
        points=grid.points,
        point_losses={name: found[f"model {name}"] for name in grid.models},
        head=grid.head_name,
        axes=grid.axes,
    )


def _work(objective: Objective, grid: _Grid) -> str:
    """Hashes all that the losses depend on; of the loss function only its name, since code has no stable hash."""
    model, loss = objective.model, objective.loss
    texts = [type(model).__qualname__, str(getattr(loss, "__qualname__", loss)), *objective.names, *grid.points]
    texts += [str((grid.x, grid.y, grid.points, grid.head_name)), *(k for batch in objective.batches for k in batch)]
    inside = {id(w) for w in objective.weights}
    others = [t for t in (*model.parameters(), *model.buffers()) if id(t) not in inside]
    data = [tensor for batch in objective.batches for tensor in batch.values()]
    basis = [tensor for side in (grid.plane.origin, *grid.plane.directions) for tensor in side]
    return fingerprint(texts, [*basis, *grid.head.values(), *others, *data])
