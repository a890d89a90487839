"""Times the sub-layers of a model at each width on this machine, and keeps the times in a file."""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from trainflat.anatomy import anatomy_of
from trainflat.anatomy.params import unwrapped
from trainflat.core.errors import InputError
from trainflat.core.files import read_as, write_json
from trainflat.core.progress import Progress
from trainflat.core.settings import Number
from trainflat.core.timing import spread
from trainflat.objective.state_guard import preserve_state
from trainflat.pruning.structured.kept import Kept
from trainflat.pruning.structured.search import Numbers
from trainflat.pruning.structured.shrink import shrink
from trainflat.pruning.structured.sub_layers import SubLayer, sub_layers
from trainflat.records.run import package_version, processor

_POINTS = 12  # widths above 0 that are timed of each kind of sub-layer; what lies between is interpolated
_MULTIPLE = 32
_ROUNDS = 5, 60

Positive = Annotated[float, Number("is above 0", lambda x: x > 0)]


@dataclass(frozen=True)
class Call:
    """Holds a module with what it is called with."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self) -> object:
        return self.module(*self.args, **self.kwargs)


Timer = Callable[[Mapping[str, Call]], Mapping[str, float]]
"""Times calls side by side: seconds by their names."""


@dataclass(frozen=True)
class LatencyTable:
    """Holds what the widths of sub-layers take.

    Attributes:
        key: What the times depend on: machine, versions, threads, the model's shape, rows and positions per pass.
        dense: Seconds of a forward pass of the whole dense model.
        empty: Seconds of a pass with nothing in any sub-layer.
        seconds: By kind of sub-layer and by width, the seconds by which one pass through its layer takes longer than
            with nothing in the sub-layer.
    """

    key: dict[str, str]
    dense: Positive
    empty: Positive
    seconds: dict[str, dict[int, float]]

    def seconds_by_width(self, model: Any, sub: SubLayer) -> Numbers:
        """Returns the seconds of 0, 1, ... units [units + 1], interpolated between the widths that were timed.

        Raises:
            InputError: the table has no such sub-layer.
        """
        found = self.seconds.get(_kind(model, sub), {})
        if not found.keys() >= set(_grid(sub)):
            raise InputError(
                f"the latency table has no times of {sub.name} ({_kind(model, sub)}): it is another model's. Measure a "
                "table of this model."
            )
        widths = sorted(found)
        # More units never take less time; where a busy machine measured so, the narrower width's time holds.
        measured = np.maximum.accumulate([max(found[width], 0.0) for width in widths])
        times = np.interp(np.arange(len(sub.units) + 1), widths, measured)
        return np.asarray(times, dtype=np.float64)

    def compare(self, one: Any, other: Any, timer: Timer | None = None) -> tuple[float, float]:
        """Times whole passes of two models in turn, with the rows, positions and threads of the table."""
        batch, length = map(int, self.key["pass"].split(" x "))
        threads = torch.get_num_threads()
        torch.set_num_threads(int(self.key["threads"]))
        try:
            with preserve_state(one, []), preserve_state(other, []), torch.no_grad():
                calls = {name: Call(m, (), _inputs(m, batch, length)) for name, m in (("one", one), ("other", other))}
                times = timer(calls) if timer else _alternating(calls, Progress(), seconds=2.0)
        finally:
            torch.set_num_threads(threads)
        return times["one"], times["other"]

    def save(self, path: Path) -> None:
        """Writes a JSON file, atomically."""
        write_json(path, asdict(self))


def latency_table(
    path: Path,
    model: nn.Module,
    batch: int,
    length: int,
    *,
    timer: Timer | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Reads the table of a file, or measures and writes it where there is none or it is of another machine or shape.

    Args:
        path: The file.
        model: The dense model, on the device where it shall run.
        batch: Rows per pass.
        length: Positions per row; images have as many as they have.
        timer: Takes the times.
        progress: Told of the rounds of timing.

    Raises:
        DamagedFile: the file is no table.
        InputError: the architecture is not known, or the sizes are not positive.
    """
    key = _key(model, batch, length)
    if path.exists():
        table = read_as(path, LatencyTable, "a table of latencies")
        if table.key == key:
            return table
    table = measure_table(model, batch, length, timer=timer, progress=progress)
    table.save(path)
    return table


def measure_table(
    model: Any, batch: int, length: int, *, timer: Timer | None = None, progress: Progress | None = None
) -> LatencyTable:
    """Times the dense model, and layers in which one sub-layer is narrow and the other whole.

    A layer is timed as the shrunk model has it, called with what it is called with there. Sub-layers of one shape count
    as one kind, so that the model's own layers serve as copies: each holds another width.

    Args:
        model: As for :func:`latency_table`; so are the others.
        batch: Rows per pass.
        length: Positions per row.
        timer: Takes the times; alternates and takes the lower quartile by default.
        progress: Told of the rounds of timing.
    """
    plain, key = unwrapped(model), _key(model, batch, length)
    inputs = _inputs(plain, batch, length)
    kinds: dict[str, list[SubLayer]] = {}
    for sub in sub_layers(plain):
        kinds.setdefault(_kind(plain, sub), []).append(sub)
    with preserve_state(plain, []), torch.no_grad():
        nothing = [unit for subs in kinds.values() for sub in subs for unit in sub.units]
        empty = shrink(plain, Kept.all(anatomy_of(plain)).without(nothing)).eval()
        calls = {"dense": Call(plain, (), inputs), "empty": Call(empty, (), inputs)}
        for kind, subs in kinds.items():
            calls |= {f"{kind}: {width}": call for width, call in _narrow(plain, subs, inputs)}
        times = timer(calls) if timer else _alternating(calls, progress or Progress())
    seconds = {
        kind: {width: times[f"{kind}: {width}"] - times[f"{kind}: 0"] for width in _grid(subs[0])}
        for kind, subs in kinds.items()
    }
    return LatencyTable(key, times["dense"], min(times["empty"], times["dense"]), seconds)


def _narrow(model: Any, subs: Sequence[SubLayer], inputs: Mapping[str, Tensor]) -> Iterator[tuple[int, Call]]:
    """Yields a layer for each width of the grid: layers of models in which each layer has another width."""
    everything = Kept.all(anatomy_of(model))
    grid = _grid(subs[0])
    for start in range(0, len(grid), len(subs)):
        pairs = list(zip(subs, grid[start : start + len(subs)], strict=False))
        small = shrink(model, everything.without(unit for sub, width in pairs for unit in sub.units[width:])).eval()
        for sub, width in pairs:
            yield width, _caught(small, sub.path, inputs)


def _caught(model: nn.Module, path: str, inputs: Mapping[str, Tensor]) -> Call:
    found: list[Call] = []
    layer = model.get_submodule(path)
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(Call(module, args, kwargs)), with_kwargs=True
    )
    try:
        model(**inputs)
    finally:
        handle.remove()
    return found[0]


def _alternating(calls: Mapping[str, Call], progress: Progress, seconds: float = 0.3) -> dict[str, float]:
    """Times all calls in turn, so that a slow phase of the machine meets all alike; each for about so many seconds."""
    # The lower quartile: other processes only ever add time, and the least of many is a matter of luck.
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(2):  # the first one warms up
        _round(calls, taken)
    rounds = int(np.clip(seconds * len(taken) / sum(own[-1] for own in taken.values()), *_ROUNDS))
    for _ in progress.each("timing widths of sub-layers", range(rounds), rounds):
        _round(calls, taken)
    return {name: spread(own[1:]).low for name, own in taken.items()}


def _round(calls: Mapping[str, Call], taken: Mapping[str, list[float]]) -> None:
    for name, call in calls.items():
        taken[name].append(_once(call))


def _once(call: Call) -> float:
    start = perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # kernels are only queued when the call returns
    return perf_counter() - start


def _grid(sub: SubLayer) -> list[int]:
    """Lists the widths that are timed: none, 1, all, and about ten between them, of units in multiples of 32."""
    # From none to one unit there is a step: an empty sub-layer calls no kernels.
    units, multiple = len(sub.units), _MULTIPLE if sub.kind == "feed-forward" else 1
    step = multiple * max(1, -(-units // (_POINTS * multiple)))
    return sorted({0, 1, *range(step, units, step), units})


def _kind(model: Any, sub: SubLayer) -> str:
    """Names sub-layers that take equal times: of one shape, and of one reach where some attend to neighbours only."""
    reach = getattr(model.config, "layer_types", None)
    return " ".join([sub.kind, f"{len(sub.units)} x {sub.width}", *([reach[sub.place]] if reach else [])])


def _inputs(model: Any, batch: int, length: int) -> dict[str, Tensor]:
    draws, config, anatomy = torch.Generator().manual_seed(0), model.config, anatomy_of(model)
    if anatomy.words is None:
        size = (config.image_size,) * 2 if isinstance(config.image_size, int) else tuple(config.image_size)
        pixels = torch.randn(batch, config.num_channels, *size, generator=draws)
        return {"pixel_values": pixels.to(model.device, model.dtype)}
    ids = torch.randint(anatomy.vocabulary, (batch, length), generator=draws).to(model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _key(model: Any, batch: int, length: int) -> dict[str, str]:
    if min(batch, length) < 1:
        raise InputError(f"latency is measured for at least 1 row of 1 position, got {batch} of {length}.")
    plain = unwrapped(model)
    shape = [f"{_kind(plain, sub)}, {sub.output.outputs}" for sub in sub_layers(plain)]
    found = {
        "machine": f"{platform.machine()}, {processor()}",
        "versions": f"torch {package_version('torch')}, transformers {package_version('transformers')}",
        "threads": torch.get_num_threads(),
        "device": f"{plain.device}, {plain.dtype}",
        "model": f"{type(plain).__name__}: {'; '.join(dict.fromkeys(shape))}; {len(shape)} sub-layers",
        "pass": f"{batch} x {length}",
    }
    return {name: str(value) for name, value in found.items()}
