"""The package's own stopwatch, which here prints every round."""

from collections.abc import Callable, Mapping

from trainflat.core import timing
from trainflat.core.timing import (
    QUIET,
    REPEATS,
    RETAKES,
    Candidate,
    Clock,
    Sample,
    Spread,
    ratio,
    readable,
    seconds,
    spread,
)

__all__ = [
    "QUIET",
    "REPEATS",
    "RETAKES",
    "Candidate",
    "Clock",
    "Sample",
    "Spread",
    "alternate",
    "ratio",
    "readable",
    "seconds",
    "spread",
]


def alternate(
    candidates: Mapping[str, Candidate],
    repeats: int = REPEATS,
    clock: Clock | None = None,
    say: Callable[[str], object] = lambda text: print(text, flush=True),
) -> dict[str, list[Sample]]:
    """As `trainflat.core.timing.alternate`, said aloud."""
    return timing.alternate(candidates, repeats, clock, say)
