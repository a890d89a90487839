"""Loss landscapes: planes as contours and as surfaces, lines with their barriers, spectra of the Hessian."""

from collections.abc import Iterable, Sequence

from trainflat.core.formatting import plural
from trainflat.records.landscape import Landscape, LineRecord, PlaneRecord, SpectrumRecord
from trainflat.report.elements import Axis, Entry, Field, Figure, Line, Mark, Note, Plot, Points, Rows, Table
from trainflat.report.notes import PARTIAL
from trainflat.report.palette import Palette
from trainflat.report.sections.base import Results, Section, marked
from trainflat.report.words import numbered, slug

_ORDER = (PlaneRecord, LineRecord, SpectrumRecord)
_DECADES = 6  # of density below the highest; further down there are only tails of the smoothing Gaussian
_CURVE = "{x:.3g}: {y:.4g}"
Span = tuple[float, float]


class Landscapes(Section):
    """A figure for each landscape; a plane that was measured with several heads is one figure."""

    title = "Landscape"
    front = True

    def entries(self, results: Results) -> list[Entry]:
        every = together(results.landscapes)
        files = numbered([slug(f"landscape-{title_of(same[0])}") for same in every])
        return [
            Entry(title_of(same[0]), [_figure(k, file, same), *_tables(same)], partial=same[0].partial)
            for k, (file, same) in enumerate(zip(files, every, strict=True))
        ]


def together(landscapes: Iterable[Landscape]) -> list[list[Landscape]]:
    """Sorts landscapes by kind, title and name; planes that differ in nothing but the task head are one entry."""
    found: dict[str, list[Landscape]] = {}
    for each in sorted(landscapes, key=_place):
        found.setdefault(_plane_alone(each) or each.model_dump_json(), []).append(each)
    return list(found.values())


def title_of(landscape: Landscape) -> str:
    """Returns what a reader calls it."""
    return landscape.title or landscape.name


def loss_range(planes: Iterable[PlaneRecord]) -> Span:
    """Returns the lowest and highest finite loss of some planes: one colour scale for all."""
    seen = [loss for plane in planes for row in plane.losses for loss in row if loss is not None] or [0.0]
    low, high = min(seen), max(seen)
    return (low, high) if high > low else (low, low + 1.0)


def density_range(spectrum: SpectrumRecord) -> Span:
    """Returns what is shown of the density, on a logarithmic axis."""
    highest = max([value for value in spectrum.density if value > 0], default=1.0)
    return highest / 10**_DECADES, highest * 2


def landscape_table(landscapes: Iterable[Landscape]) -> Rows:
    """Returns one row per model in a plane, per line and per eigenvalue."""
    rows: Rows = []
    for each in (one for same in together(landscapes) for one in same):
        head = _head_of(each) if isinstance(each, PlaneRecord) else ""
        where = {"Landscape": " · ".join(filter(None, (title_of(each), head)))}
        rows += [where | {"Of": of, "Figure": figure, "Value": value} for of, figure, value in _values(each)]
    return rows


def _tables(same: Sequence[Landscape]) -> list[Table]:
    rows = landscape_table(same)
    return [Table(rows)] if rows else []


def _figure(k: int, file: str, same: Sequence[Landscape]) -> Figure:
    first = same[0]
    plots, size, caption = _plots(same)
    under = "; ".join(filter(None, (first.measured_on, PARTIAL if first.partial else "")))
    caption = marked(caption, partial=first.partial)
    columns = len(same) if isinstance(first, PlaneRecord) else 2
    return Figure(
        f"landscape-{k}", file, title_of(first), plots, caption, [under], broad=True, columns=columns, size=size
    )


def _plots(same: Sequence[Landscape]) -> tuple[list[Plot], tuple[float, float], str]:
    """Returns the plots, the size of one in a file, and the caption."""
    first = same[0]
    if isinstance(first, LineRecord):
        return _line_plots(first), (4.3, 3.2), _line_caption(first)
    if isinstance(first, SpectrumRecord):
        return [_spectrum_plot(first)], (4.8, 3.2), _spectrum_caption(first)
    planes = [each for each in same if isinstance(each, PlaneRecord)]
    span = loss_range(planes)
    plots = [_contours(plane, span) for plane in planes] + [_surface(plane, span) for plane in planes]
    return plots, (4.4, 3.5), _plane_caption(first)


def _contours(plane: PlaneRecord, span: Span) -> Plot:
    field = Field(plane.x, plane.y, plane.losses, *span, label="Loss")
    marks = [_model(plane, name, []) for name in plane.points]
    return Plot([[field, *marks]], Axis(plane.axes[0]), Axis(plane.axes[1]), _headed("Contours", plane), 300)


def _surface(plane: PlaneRecord, span: Span) -> Plot:
    field = Field(plane.x, plane.y, plane.losses, *span, label="loss", surface=True)
    pins = [_model(plane, name, [loss]) for name, loss in plane.point_losses.items()]
    return Plot([[field, *pins]], Axis(plane.axes[0]), Axis(plane.axes[1]), _headed("Surface", plane))


def _model(plane: PlaneRecord, name: str, z: Sequence[float | None]) -> Points:
    x, y = plane.points[name]
    slot = Palette(plane.points).slot(name)
    hover = f"loss {_number(plane.point_losses[name])}"
    return Points([x], [y], z, color=f"series-{slot}", symbol=slot, size=11, names=[name], hover=hover)


def _line_plots(line: LineRecord) -> list[Plot]:
    ticks = [(0.0, line.ends[0]), (0.5, "0.5"), (1.0, line.ends[1])] if line.ends else []
    across = Axis(line.axis, ticks=ticks)
    marks: list[Mark] = [Line(line.positions, line.losses, color="series-0", symbol=0, hover=_CURVE)]
    if line.ends:
        ends = [line.losses[line.positions.index(end)] for end in (0.0, 1.0)]
        marks.append(Line([0, 1], ends, width=1, dash=2))
    marks += _barrier(line)
    loss = Plot([marks], across, Axis("Loss"), "Loss" if line.scores else "")
    if not line.scores:
        return [loss]
    scores = Line(line.positions, line.scores, color="series-2", symbol=0, hover=_CURVE)
    return [loss, Plot([[scores]], across, Axis(line.score_name), line.score_name or "Score")]


def _barrier(line: LineRecord) -> list[Mark]:
    """Draws where the barrier is, from the chord up to the loss; nothing where there is none."""
    at, height = line.peak, line.barrier
    top = None if at is None else line.losses[line.positions.index(at)]
    if at is None or top is None or not height:
        return []
    bar = Line([at, at], [top - height, top], color="series-1", width=2.5)
    return [bar, Note(at, top, f"barrier {_number(height)}")]


def _spectrum_plot(spectrum: SpectrumRecord) -> Plot:
    low, high = density_range(spectrum)
    density = [value if value > 0 else None for value in spectrum.density]
    marks: list[Mark] = [Line(spectrum.eigenvalues, density, color="series-0", hover=_CURVE)]
    if spectrum.top:
        places = [low * 1.5] * len(spectrum.top)
        marks.append(Points(spectrum.top, places, color="series-1", symbol=3, hover="eigenvalue {x:.4g}"))
    axis = Axis("Density", low, high, log=True)
    return Plot([marks], Axis("Eigenvalue of the Hessian"), axis)


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


def _values(landscape: Landscape) -> list[tuple[str, str, str]]:
    """Returns of what, which figure, and its value."""
    if isinstance(landscape, PlaneRecord):
        return [(name, "loss", _number(loss)) for name, loss in landscape.point_losses.items()]
    if isinstance(landscape, LineRecord):
        of = " – ".join(landscape.ends or ())
        names = [("barrier", landscape.barrier), ("barrier over the mean", landscape.barrier_over_mean)]
        return [(of, name, _number(value)) for name, value in names] if landscape.ends else []
    return [("Hessian", f"eigenvalue {k}", _number(value)) for k, value in enumerate(landscape.top, 1)]


def _place(landscape: Landscape) -> tuple[int, str, str, str]:
    return _ORDER.index(type(landscape)), title_of(landscape), landscape.name, landscape.model_dump_json()


def _plane_alone(landscape: Landscape) -> str:
    if not isinstance(landscape, PlaneRecord) or not landscape.head:
        return ""
    return landscape.model_dump_json(include={"x", "y", "points", "axes", "measured_on", "partial"})


def _headed(what: str, plane: PlaneRecord) -> str:
    return " · ".join(filter(None, (what, _head_of(plane))))


def _head_of(plane: PlaneRecord) -> str:
    return f"head of {plane.head}" if plane.head else ""


def _on(landscape: Landscape) -> str:
    return f" ({landscape.measured_on})" if landscape.measured_on else ""


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
