"""What was logged while the model of each sparsity was trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from trainflat.report.elements import Axis, Line, Plot
from trainflat.report.palette import Palette
from trainflat.report.panels import Panel, Point, all_at
from trainflat.report.sections.base import Section

CURVES = {
    "loss": "Training loss",
    "perturbation": "‖ε‖, length of the perturbation",
    "loss_gap": "Loss gap, L(w + ε) − L(w)",
    "sparsity": "Sparsity, share of the gate's weights or units",
    "sparsity_target": "Sparsity that is wanted by then",
    "sparsity_expected": "Sparsity that is expected of the gates' draws",
    "multiplier_1": "λ₁, multiplier of the gap between the two",
    "multiplier_2": "λ₂, multiplier of its square",
    "penalty": "λ, strength of the penalty on scores",
}
_POINTS = 200  # per curve; more cannot be seen


class TrainingCurves(Section):
    """One plot per quantity that some run logged, one line per method."""

    title = "Training curves"
    key = "curves"
    file = "training"

    def targets(self, panel: Panel) -> Sequence[float]:
        points = {target: [one for line in panel.lines for one in all_at(line, target)] for target in panel.targets}
        return [target for target, found in points.items() if any(map(_logged, found))]

    def plots(self, panel: Panel, palette: Palette) -> Sequence[Plot]:
        targets = self.targets(panel)
        frames = {name: [_lines(panel, name, target, palette) for target in targets] for name in CURVES}
        return [
            Plot(frames[name], Axis("Step"), Axis(from_zero=True), title)
            for name, title in CURVES.items()
            if any(frames[name])
        ]

    def caption(self, panel: Panel) -> str:
        said = "While the model of the chosen sparsity was trained: means over seeds, with one standard deviation to "
        said += "either side."
        if not all(point.alone for line in panel.lines for point in line.points):
            said += " A stage that went on from another of its sparsity follows that one."
        names = {name for line in panel.lines for point in line.points for name in _logged(point)}
        if len(names) > 1:
            said += " ‖ε‖ is how far the weights stood displaced for the second gradient, the loss gap what that added."
            said += " Were they near zero, the run would not have been a flat one."
        return said


@dataclass(frozen=True)
class Curve:
    """One logged quantity of one training, or its mean over seeds."""

    steps: list[float]
    values: list[float]
    spread: Sequence[float | None] = ()  # over seeds, where it is a mean


def curves(point: Point, quantity: str) -> list[Curve]:
    """Returns a curve per run that was trained and logged the quantity, thinned evenly to what can be seen."""
    found = []
    for _, stage in point.runs:
        logged = stage.training.curve if stage.training else []
        entries = [(entry["step"], entry[quantity]) for entry in logged if quantity in entry and "step" in entry]
        if entries:
            stride = -(-len(entries) // _POINTS)
            kept = sorted({*range(0, len(entries), stride), len(entries) - 1})
            steps, values = zip(*(entries[i] for i in kept), strict=True)
            found.append(Curve(list(steps), list(values)))
    return found


def _lines(panel: Panel, quantity: str, target: float, palette: Palette) -> list[Line]:
    found = [(line, curve) for line in panel.lines for curve in _means(_in_turn(all_at(line, target), quantity))]
    return [
        Line(
            curve.steps,
            curve.values,
            line.label,
            f"series-{palette.slot(line.optimizer)}",
            1.5,
            line.variant,
            palette.symbol(line.optimizer, line.variant) if len(curve.steps) <= 3 else None,
            curve.spread,
            hover="step {x:g}: {y:.4g}",
        )
        for line, curve in found
    ]


def _means(found: Sequence[Curve]) -> list[Curve]:
    """Joins seeds that were logged at the same steps into their mean and standard deviation."""
    alike: dict[tuple[float, ...], list[Curve]] = {}
    for curve in found:
        alike.setdefault(tuple(curve.steps), []).append(curve)
    return [
        Curve(list(steps), [fmean(at) for at in zip(*values, strict=True)], _spread(values))
        for steps, same in alike.items()
        for values in [[curve.values for curve in same]]
    ]


def _spread(values: Sequence[Sequence[float]]) -> list[float | None]:
    return [stdev(at) if len(at) > 1 else None for at in zip(*values, strict=True)]


def _in_turn(points: Sequence[Point], quantity: str) -> list[Curve]:
    """Joins the training curves of a line's stages, each shifted behind the last step of the stage before."""
    found: list[Curve] = []
    before = 0
    for point in points:
        found += [replace(one, steps=[before + step for step in one.steps]) for one in curves(point, quantity)]
        before += max((stage.training.steps for _, stage in point.runs if stage.training), default=0)
    return found


def _logged(point: Point) -> set[str]:
    return {name for name in CURVES if curves(point, name)}
