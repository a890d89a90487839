"""What measuring a loss landscape leaves behind, as data, which reports draw.

A file is called ``landscape-NAME.json`` and lies in the folder of a run, or in any folder that a report is made of.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainflat.core.formatting import plural
from trainflat.records.base import Data, Format

PATTERN = "landscape-*.json"
Loss = float | None  # None where the loss is no finite number
Finite = Annotated[float, Field(allow_inf_nan=False)]
Losses = list[Annotated[Loss, Field(allow_inf_nan=False)]]


class _Landscape(Data):
    """What all kinds share."""

    name: str  # of the file, and of nothing else in its folder
    title: str = ""  # what people read; the name if empty
    measured_on: str = ""  # "validation, 1,500 rows"
    partial: bool = False  # measured on a part of the official split

    def save(self, folder: Path) -> Path:
        """Writes ``landscape-NAME.json``, atomically. Raises InputError if it cannot be written."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[:100]  # safe on every system
        return LANDSCAPE.write(folder / f"landscape-{name}.json", self)


class PlaneRecord(_Landscape):
    """Losses over a plane through the space of weights.

    ``losses[i][k]`` is the loss at ``origin + x[k] * u + y[i] * v``. Where the plane was put through three models,
    ``u`` and ``v`` are orthonormal and coordinates are L2 distances between weights; where directions were given,
    coordinates count these.
    """

    kind: Literal["plane"] = "plane"
    x: Annotated[list[Finite], Field(min_length=2)]
    y: Annotated[list[Finite], Field(min_length=2)]
    losses: list[Losses]
    points: dict[str, tuple[Finite, Finite]] = {}  # models that lie in the plane
    point_losses: dict[str, Loss] = {}  # of these models themselves
    head: str = ""  # whose task head every point was evaluated with; empty: the head moves with the rest
    axes: tuple[str, str] = ("x", "y")  # what one unit along each axis is

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.losses) != len(self.y) or any(len(row) != len(self.x) for row in self.losses):
            raise ValueError(f"losses need {plural(len(self.y), 'row')} of {plural(len(self.x), 'value')}")
        if set(self.point_losses) != set(self.points):
            raise ValueError("points and point_losses name different models")
        return self


class LineRecord(_Landscape):
    """Losses along a line through the space of weights: between two models, or along a direction from one."""

    kind: Literal["line"] = "line"
    positions: Annotated[list[Finite], Field(min_length=2)]  # ascending; 0 is the first model, 1 the second
    losses: Losses
    ends: tuple[str, str] | None = None  # names of the models at 0 and 1; None for a direction
    scores: list[float] | None = None  # what else was measured at each position
    score_name: str = ""
    axis: str = ""  # what one unit of the position is

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(len(values) != len(self.positions) for values in (self.losses, self.scores) if values is not None):
            raise ValueError(f"losses and scores need {plural(len(self.positions), 'value')}")
        if sorted(set(self.positions)) != self.positions:
            raise ValueError("positions do not ascend")
        if self.ends is not None and not {0.0, 1.0} <= set(self.positions):
            raise ValueError("a line between two models has both of them, at positions 0 and 1")
        return self

    @property
    def barrier(self) -> Loss:
        """Returns the greatest height of the loss over the straight line between both ends' losses; at least 0.

        :math:`max_a L(a) - ((1 - a) L(0) + a L(1))` over the positions a in [0, 1] (Entezari et al., 2022). None
        without two ends, or where a loss is not finite.
        """
        return max((over for _, over in self._over_chord()), default=None)

    @property
    def peak(self) -> float | None:
        """Returns the first position at which ``barrier`` is reached; None where that is None."""
        return next((a for a, over in self._over_chord() if over == self.barrier), None)

    @property
    def barrier_over_mean(self) -> Loss:
        """Returns the highest loss over the mean of the ends' (Frankle et al., 2020, who take errors); at least 0."""
        between = [self._at(a) for a, _ in self._over_chord()]
        return max(between) - (self._at(0.0) + self._at(1.0)) / 2 if between else None

    def _over_chord(self) -> list[tuple[float, float]]:
        """Returns positions between both ends, and the loss's height over the chord there."""
        between = [a for a in self.positions if 0 <= a <= 1]
        if self.ends is None or any(self.losses[self.positions.index(a)] is None for a in between):
            return []
        first, last = self._at(0.0), self._at(1.0)
        return [(a, self._at(a) - ((1 - a) * first + a * last)) for a in between]

    def _at(self, position: float) -> float:
        loss = self.losses[self.positions.index(position)]
        assert loss is not None  # callers looked
        return loss


class SpectrumRecord(_Landscape):
    """The spectral density of a Hessian: what share of its eigenvalues lies where."""

    kind: Literal["spectrum"] = "spectrum"
    eigenvalues: Annotated[list[Finite], Field(min_length=2)]  # ascending, in units of loss per squared weight
    density: list[Finite]  # share of the eigenvalues per unit, at each of these; integrates to 1
    width: Annotated[Finite, Field(gt=0)]  # standard deviation of the Gaussian that smoothed it
    top: list[Finite] = []  # the largest eigenvalues, where they are known on their own, largest first
    probes: int | None = None  # random vectors that it was estimated from
    steps: int | None = None  # Lanczos steps from each

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.density) != len(self.eigenvalues):
            raise ValueError(f"density needs {plural(len(self.eigenvalues), 'value')}")
        if sorted(set(self.eigenvalues)) != self.eigenvalues:
            raise ValueError("eigenvalues do not ascend")
        return self


Landscape = PlaneRecord | LineRecord | SpectrumRecord
LANDSCAPE = Format(
    "landscape",
    Annotated[Landscape, Field(discriminator="kind")],
    lambda landscape: landscape.model_dump(mode="json"),
    "Measure it again.",
)


def load_landscape(path: Path) -> Landscape:
    """Reads what ``save`` wrote.

    Raises:
        InputError: another version of trainflat wrote it.
        DamagedFile: it is something else, or not what was written.
    """
    found: Landscape = LANDSCAPE.read(path)
    return found
