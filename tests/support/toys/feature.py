"""A feature."""

from typing import Any

from trainflat.core.errors import InputError
from trainflat.training.features.base import Feature


class ToyFeature(Feature):
    """Counts steps, some at a time."""

    def __init__(self, settings: int) -> None:
        self.each, self.counted = settings, 0

    @classmethod
    def read(cls, section: Any) -> int:
        if not isinstance(section, int):
            raise InputError(f"toy is a whole number, got {section!r}.")
        return section

    @classmethod
    def outlook(cls, settings: int, steps: int, steps_per_epoch: int) -> str:
        return f"{settings * steps} counted"

    def stepped(self, step: int) -> None:
        self.counted += self.each

    def logs(self, evaluated: bool) -> dict[str, float]:
        return {"toy_count": self.counted}

    def record(self) -> dict[str, Any]:
        return {"toy": self.counted}
