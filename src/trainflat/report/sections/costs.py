"""Shows the size, training cost and latency of every stage."""

from collections.abc import Callable, Sequence
from functools import partial

from trainflat.core.formatting import plural
from trainflat.records.run import Latency, Record, Stage
from trainflat.report.elements import Rows, Table
from trainflat.report.panels import Panel, Point
from trainflat.report.sections.base import Row, Section
from trainflat.report.words import DASH, duration, megabytes

_MEASURES: dict[str, Callable[[Record, Stage], float | None]] = {
    "encoder_sparsity": lambda _, stage: stage.sizes.encoder_sparsity,
    "total_sparsity": lambda _, stage: stage.sizes.total_sparsity,
    "parameters": lambda _, stage: stage.sizes.parameters,
    "nonzero": lambda _, stage: stage.sizes.nonzero,
    "dense_bytes": lambda _, stage: stage.sizes.dense_bytes,
    "bitmask_bytes": lambda _, stage: stage.sizes.bitmask_bytes,
    "packed_bytes": lambda _, stage: stage.sizes.packed_bytes,
    "steps": lambda _, stage: stage.training.steps if stage.training else None,
    "passes": lambda _, stage: stage.training.passes if stage.training else None,
    "train_seconds": lambda _, stage: stage.timing.train_seconds if stage.training else None,
    "evaluate_seconds": lambda _, stage: stage.timing.evaluate_seconds,
}
_SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "Zeros, encoder": ("encoder_sparsity", lambda share: f"{100 * share:.1f} %"),
    "Zeros, all": ("total_sparsity", lambda share: f"{100 * share:.1f} %"),
    "Dense MB": ("dense_bytes", megabytes),
    "Bits + values MB": ("bitmask_bytes", megabytes),
    "Packed MB": ("packed_bytes", megabytes),
    "Passes": ("passes", lambda count: f"{count:,.0f}"),
    "Training": ("train_seconds", duration),
}
_Shape = tuple[int, int, str, int]  # batch, length, device, threads


class Costs(Section):
    """Tabulates sizes, passes and times, mean over seeds."""

    title = "Costs"
    anchor = "costs"
    about = (
        "Per stage, mean over seeds. Zeros of the encoder's prunable weights and of all parameters; megabytes of 10⁶ "
        "bytes: every parameter as float32, pruned matrices as one bit per entry and the surviving values, and the "
        "same with the bits compressed; passes forward and backward over a whole batch, and time, for training this "
        "stage alone; the median of one forward pass by batch × length."
    )
    folded = True

    def tables(self, panel: Panel) -> Sequence[Table]:
        return [Table(cost_table(panel))]

    def columns(self, panel: Panel, point: Point) -> Row:
        times = {f"latency_ms_{b}x{t}_{device}_{n}_threads": v for (b, t, device, n), v in _latencies(point).items()}
        return {name: _mean(point, measure) for name, measure in _MEASURES.items()} | times


def cost_table(panel: Panel) -> Rows:
    """Returns a row per stage of every line."""
    return [{"Optimizer": line.label, **_costs(point)} for line in panel.lines for point in line.points]


def _costs(point: Point) -> dict[str, str]:
    found = {title: (_mean(point, _MEASURES[name]), write) for title, (name, write) in _SHOWN.items()}
    times = {
        f"ms, {batch} × {plural(length, 'token')}, {device}, {plural(threads, 'thread')}": value
        for (batch, length, device, threads), value in _latencies(point).items()
    }
    return {
        "Sparsity": point.title,
        **{title: DASH if value is None else write(value) for title, (value, write) in found.items()},
        **{title: DASH if value is None else f"{value:.2f}" for title, value in times.items()},
    }


def _mean(point: Point, measure: Callable[[Record, Stage], float | None]) -> float | None:
    found = point.over_seeds(measure)
    return found.mean if found else None


def _latencies(point: Point) -> dict[_Shape, float | None]:
    """Returns milliseconds by shape and machine part, since other threads or devices are other measurements."""
    shapes = sorted({_shape(each) for _, stage in point.runs for each in stage.timing.latency})
    return {shape: _mean(point, partial(_median, shape)) for shape in shapes}


def _shape(latency: Latency) -> _Shape:
    return latency.batch, latency.length, latency.device, latency.threads


def _median(shape: _Shape, _: Record, stage: Stage) -> float | None:
    return next((1000 * each.median for each in stage.timing.latency if _shape(each) == shape), None)
