"""The numbers behind the figures, for the page and for the files alike."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainflat.report.panels import Line, Panel, Point
from trainflat.report.published import reference_sparsity

CURVES = {
    "loss": "Training loss",
    "perturbation": "‖ε‖, length of the perturbation",
    "loss_gap": "Loss gap, L(w + ε) − L(w)",
    "sparsity": "Sparsity, share of the gate's weights or units",
    "penalty": "λ, strength of the penalty on scores",
}
_POINTS = 400  # per curve; more cannot be seen
_KINDS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention out",
    "intermediate.dense": "feed-forward in",
    "output.dense": "feed-forward out",
}


@dataclass(frozen=True)
class Grid:
    """Share of zeros per matrix, in percent: kinds of matrices × layers; None where a layer has no such matrix."""

    kinds: list[str]
    layers: list[str]
    shares: list[list[float | None]]


@dataclass(frozen=True)
class Curve:
    """One logged quantity of one training."""

    seed: int
    steps: list[float]
    values: list[float]


def zero_grid(point: Point) -> Grid:
    """Where the zeros of a stage lie, mean over seeds. A matrix outside the layers stands in the last column."""
    totals: dict[str, list[int]] = {}
    for _, stage in point.runs:
        for matrix in stage.matrices:
            zeros, entries = totals.get(matrix.name, (0, 0))
            totals[matrix.name] = [zeros + matrix.zeros, entries + matrix.entries]
    places = {name: _place(name) for name in totals}
    layers = sorted({layer for layer, _ in places.values() if layer}) or [(0,)]
    kinds = list(dict.fromkeys([kind for layer, kind in places.values() if layer] + [k for _, k in places.values()]))
    shares: list[list[float | None]] = [[None] * len(layers) for _ in kinds]
    for name, (layer, kind) in places.items():
        zeros, entries = totals[name]
        column = layers.index(layer) if layer else len(layers) - 1
        shares[kinds.index(kind)][column] = 100 * zeros / max(entries, 1)
    return Grid(kinds, [".".join(map(str, layer)) for layer in layers], shares)


def shares_seen(grids: Sequence[Grid]) -> tuple[float, float]:
    """Lowest and highest share inside the layers of some grids, in percent, rounded outwards: one colour scale for all.

    A row with a single matrix, such as the pooler, is far off more often than not, and would flatten the rest.
    """
    rows = [[value for value in row if value is not None] for grid in grids for row in grid.shares]
    values = (
        [value for row in rows if len(row) > 1 for value in row] or [value for row in rows for value in row] or [0.0]
    )
    low, high = min(values) // 1, -(-max(values) // 1)
    return (low, high) if high > low else (low, low + 1)


def curves(point: Point, quantity: str) -> list[Curve]:
    """One curve per run that was trained and logged the quantity, thinned evenly to what can be seen."""
    found = []
    for record, stage in point.runs:
        logged = stage.training.curve if stage.training else []
        entries = [(entry["step"], entry[quantity]) for entry in logged if quantity in entry and "step" in entry]
        if entries:
            stride = -(-len(entries) // _POINTS)
            kept = sorted({*range(0, len(entries), stride), len(entries) - 1})
            steps, values = zip(*(entries[i] for i in kept), strict=True)
            found.append(Curve(record.seed, list(steps), list(values)))
    return found


def focus(panel: Panel) -> float:
    """The sparsity that is shown first: the one nearest to the reference sparsity, else the highest."""
    wanted = reference_sparsity(panel)
    targets = panel.targets
    return targets[-1] if wanted is None else min(targets, key=lambda target: (abs(target - wanted), target))


def at(line: Line, target: float) -> Point | None:
    """The line's last point at a sparsity."""
    return next((point for point in reversed(line.points) if point.target == target), None)


def _place(name: str) -> tuple[tuple[int, ...], str]:
    """Layer numbers in a parameter's name, and its kind: (3,) and query for ``layer.3.attention.self.query.weight``."""
    path = name.removesuffix(".weight").split(".")
    numbers = [i for i, part in enumerate(path) if re.fullmatch(r"\d+", part)]
    if not numbers:
        return (), ".".join(path[-2:]).removesuffix(".dense")
    kind = ".".join(path[numbers[-1] + 1 :]) or "weight"
    return tuple(int(path[i]) for i in numbers), _KINDS.get(kind, kind.removesuffix(".dense"))
