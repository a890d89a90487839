"""Reads from records what a model weighs and how long it takes, mean over seeds."""

from functools import partial

from trainflat.records.run import Latency, Record, Stage
from trainflat.report.panels import Panel, Point, Statistics

Shape = tuple[int, int, str, int]  # batch, length, device, threads


def shape_of(latency: Latency) -> Shape:
    """Returns what was timed: times of other shapes, devices or threads do not compare."""
    return latency.batch, latency.length, latency.device, latency.threads


def stored(point: Point) -> Statistics | None:
    """Returns megabytes on disk: every parameter of a model made smaller, one with zeros as packed bits and values."""
    return point.over_seeds(lambda _, s: (s.sizes.dense_bytes if s.structure else s.sizes.packed_bytes) / 1e6)


def shapes(panel: Panel) -> list[Shape]:
    """Returns the shapes that models which are physically smaller were timed at."""
    stages = (stage for record in panel.records for stage in record.stages if stage.structure)
    return sorted({shape_of(one) for stage in stages for one in stage.timing.latency})


def latency_of(stage: Stage | None, shape: Shape) -> Latency | None:
    """Returns a stage's time at a shape."""
    return next((one for one in (stage.timing.latency if stage else ()) if shape_of(one) == shape), None)


def speedup(point: Point, shape: Shape) -> Statistics | None:
    """Returns how many times as fast as the run's own dense model a stage is, by medians."""
    return point.over_seeds(partial(_speedup, shape))


def quartiles(point: Point, shape: Shape) -> tuple[float, float, float] | None:
    """Returns median, lower and upper quartile of the milliseconds of one forward pass."""
    median, low, high = (point.over_seeds(partial(_milliseconds, shape, which)) for which in ("median", "low", "high"))
    return (median.mean, low.mean, high.mean) if median and low and high else None


def _speedup(shape: Shape, record: Record, stage: Stage) -> float | None:
    dense = latency_of(next((one for one in record.stages if one.target_sparsity == 0), None), shape)
    own = latency_of(stage, shape)
    return dense.median / own.median if dense and own and own.median else None


def _milliseconds(shape: Shape, which: str, _: Record, stage: Stage) -> float | None:
    found = latency_of(stage, shape)
    return 1000 * float(getattr(found, which)) if found else None
