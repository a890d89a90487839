"""The numbers and words behind the figures of loss landscapes, for the page and for the files alike."""

from collections.abc import Iterable, Sequence

from trainflat.core.formatting import plural
from trainflat.records.landscape import Landscape, LineRecord, PlaneRecord, SpectrumRecord
from trainflat.report.notes import PARTIAL

_ORDER = (PlaneRecord, LineRecord, SpectrumRecord)
_DECADES = 6  # of density below the highest; further down there are only tails of the smoothing Gaussian
Span = tuple[float, float]


def together(landscapes: Iterable[Landscape]) -> list[list[Landscape]]:
    """Landscapes in order of kind, title and name; planes that differ in nothing but the task head are one entry."""
    found: dict[str, list[Landscape]] = {}
    for each in sorted(landscapes, key=_place):
        found.setdefault(_plane_alone(each) or each.model_dump_json(), []).append(each)
    return list(found.values())


def _place(landscape: Landscape) -> tuple[int, str, str, str]:
    return _ORDER.index(type(landscape)), title_of(landscape), landscape.name, landscape.model_dump_json()


def _plane_alone(landscape: Landscape) -> str:
    if not isinstance(landscape, PlaneRecord) or not landscape.head:
        return ""
    return landscape.model_dump_json(include={"x", "y", "points", "axes", "measured_on", "partial"})


def title_of(landscape: Landscape) -> str:
    """What a reader calls it."""
    return landscape.title or landscape.name


def head_of(plane: PlaneRecord) -> str:
    """The task head in words; empty where it moves with the rest."""
    return f"head of {plane.head}" if plane.head else ""


def loss_range(planes: Iterable[PlaneRecord]) -> Span:
    """Lowest and highest finite loss of some planes: one colour scale for all."""
    seen = [loss for plane in planes for row in plane.losses for loss in row if loss is not None] or [0.0]
    low, high = min(seen), max(seen)
    return (low, high) if high > low else (low, low + 1.0)


def barrier_bar(line: LineRecord) -> tuple[float, Span] | None:
    """Where the barrier is, and from which loss to which it reaches; None where there is none to show."""
    at, height = line.peak, line.barrier
    top = None if at is None else line.losses[line.positions.index(at)]
    if at is None or top is None or not height:
        return None
    return at, (top - height, top)


def end_losses(line: LineRecord) -> list[float | None]:
    """Of the models at positions 0 and 1."""
    return [line.losses[line.positions.index(end)] for end in (0.0, 1.0)]


def density_range(spectrum: SpectrumRecord) -> Span:
    """What is shown of the density, on a logarithmic axis."""
    highest = max([value for value in spectrum.density if value > 0], default=1.0)
    return highest / 10**_DECADES, highest * 2


def caption_of(same: Sequence[Landscape]) -> str:
    """What is seen, in sentences."""
    first = same[0]
    if isinstance(first, PlaneRecord):
        text = _plane_caption(first)
    else:
        text = _line_caption(first) if isinstance(first, LineRecord) else _spectrum_caption(first)
    return f"{text} {PARTIAL[0].upper()}{PARTIAL[1:]}." if first.partial else text


def _plane_caption(plane: PlaneRecord) -> str:
    *names, last = plane.points or ["?"]
    through = f"the plane through {', '.join(names)} and {last}" if names else "a plane"
    text = f"Loss over {through} at {len(plane.x)} × {len(plane.y)} points{_on(plane)}; one colour scale for all."
    if plane.head:
        text += " Every point was evaluated with the task head that is named, and the other weights span the plane."
    return text


def _line_caption(line: LineRecord) -> str:
    way = f"the line from {line.ends[0]} (0) to {line.ends[1]} (1)" if line.ends else "a line"
    text = f"Loss along {way} at {plural(len(line.positions), 'point')}{_on(line)}."
    if line.barrier is None or line.barrier_over_mean is None:
        return text
    return (
        f"{text} The barrier is {line.barrier:.4g} over the straight line between both ends' losses (dotted), "
        f"{line.barrier_over_mean:.4g} over their mean."
    )


def _spectrum_caption(spectrum: SpectrumRecord) -> str:
    text = f"Share of the Hessian's eigenvalues by size{_on(spectrum)}, on a logarithmic scale, smoothed "
    text += f"by a Gaussian of width {spectrum.width:.3g}"
    if spectrum.probes and spectrum.steps:
        text += f"; estimated from {plural(spectrum.probes, 'random vector')} with {spectrum.steps} Lanczos steps each"
    if spectrum.top:
        text += ". Marks below are the largest eigenvalues, computed one by one"
    return text + "."


def _on(landscape: Landscape) -> str:
    return f" ({landscape.measured_on})" if landscape.measured_on else ""


def landscape_table(landscapes: Iterable[Landscape]) -> list[dict[str, str]]:
    """One row per model in a plane, per line and per spectrum, for people."""
    rows = []
    for each in (one for same in together(landscapes) for one in same):
        head = head_of(each) if isinstance(each, PlaneRecord) else ""
        where = {"Landscape": " · ".join(filter(None, (title_of(each), head)))}
        rows += [where | {"Of": of, "Figure": figure, "Value": value} for of, figure, value in _figures(each)]
    return rows


def _figures(landscape: Landscape) -> list[tuple[str, str, str]]:
    if isinstance(landscape, PlaneRecord):
        return [(name, "loss", number(loss)) for name, loss in landscape.point_losses.items()]
    if isinstance(landscape, LineRecord):
        of = " – ".join(landscape.ends or ())
        names = [("barrier", landscape.barrier), ("barrier over the mean", landscape.barrier_over_mean)]
        return [(of, name, number(value)) for name, value in names] if landscape.ends else []
    return [("Hessian", f"eigenvalue {k}", number(value)) for k, value in enumerate(landscape.top, 1)]


def number(value: float | None) -> str:
    """Four digits; what is no finite number is said to be none."""
    return "not finite" if value is None else f"{value:.4g}"
