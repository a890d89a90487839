"""Landscapes that look like those of real models, made up from formulas, for tests of what draws them."""

import math

from trainflat.records.landscape import Landscape, LineRecord, PlaneRecord, SpectrumRecord

_POINTS = {"init": (0.0, 0.0), "adam": (4.0, 0.0), "sam": (2.6, 3.1)}


def make_plane(head: str = "adam", name: str = "plane", title: str = "STS-B · minilm") -> PlaneRecord:
    """A narrow basin around adam and a wide one around sam; one corner left the floating-point numbers."""
    x, y = ([low + (high - low) * k / 20 for k in range(21)] for low, high in ((-1.2, 5.2), (-0.9, 4.0)))
    shift = 0.1 * (head == "sam")
    losses: list[list[float | None]] = [[_loss(a, b) + shift for a in x] for b in y]
    losses[0][0] = None
    return PlaneRecord(
        name=f"{name}-{head}",
        title=title,
        measured_on="validation, 1,500 rows",
        x=x,
        y=y,
        losses=losses,
        points=_POINTS,
        point_losses={key: _loss(*place) + shift for key, place in _POINTS.items()},
        head=head,
        axes=("distance (L2)", "distance (L2)"),
    )


def _loss(x: float, y: float) -> float:
    narrow = 1.5 * math.exp(-((x - 4) ** 2 + y**2) / 0.6)
    wide = 1.5 * math.exp(-((x - 2.6) ** 2 + (y - 3.1) ** 2) / 4)
    return 2.2 + 0.05 * x - narrow - wide


def make_line(name: str = "barrier", title: str = "AdamW, seed 0 to seed 1") -> LineRecord:
    """A hill between two models; 0.9 high over the chord, in the middle."""
    positions = [k / 20 for k in range(21)]
    return LineRecord(
        name=name,
        title=title,
        measured_on="validation, 1,500 rows",
        positions=positions,
        losses=[0.3 + 0.1 * a + 0.9 * math.sin(math.pi * a) for a in positions],
        ends=("seed 0", "seed 1"),
        scores=[88 - 20 * math.sin(math.pi * a) for a in positions],
        score_name="Pearson correlation (× 100)",
    )


def make_spectrum(name: str = "spectrum", title: str = "AdamW") -> SpectrumRecord:
    """A bulk around zero and an outlier."""
    values = [-2 + 0.1 * k for k in range(221)]
    density = [math.exp(-(v**2) / 0.5) / math.sqrt(math.pi * 0.5) + 1e-4 * math.exp(-((v - 14) ** 2)) for v in values]
    return SpectrumRecord(
        name=name, title=title, eigenvalues=values, density=density, width=0.5, top=[14.0, 1.2], probes=4, steps=64
    )


def make_landscapes() -> list[Landscape]:
    """One plane under two heads, a line and a spectrum."""
    return [make_spectrum(), make_plane("sam"), make_line(), make_plane("adam")]
