"""Assigns colours: one per optimizer, the same in every figure and file, also distinct for colour-blind readers.

After Okabe and Ito (2008), darkened or lightened until lines have a contrast of at least 3 : 1 with the ground.
"""

from collections.abc import Iterable, Sequence

LIGHT = ("#0072B2", "#C75200", "#007F5F", "#A8418C", "#8A6A00", "#56606B")
DARK = ("#5CB3EA", "#F5894A", "#35C39A", "#E08FC6", "#DDB945", "#A9B4BF")
GROUND, INK, MUTED, RULE = "#FFFFFF", "#1B2229", "#5A6672", "#D9DFE5"  # of the light theme
HEAT_LIGHT = ("#F1F4F7", "#7FAECB", "#123F63")
HEAT_DARK = ("#1D252D", "#3F7DA6", "#CFE8F7")
HEAT_LEVELS = 24  # colours of a scale
MARKERS = DASHES = 6  # that are told apart
_FIRST = {"adamw": 0, "adam": 0, "sam": 1, "asam": 2}  # the two that are compared most always look the same
_OTHERS = (3, 4, 5, 2, 1, 0)
_PAPER = {"adam": ("adam", "adamw"), "sam": ("sam",)}  # whose colour a published figure takes


def heat_scale(anchors: Sequence[str]) -> list[str]:
    """Returns the colours of a scale, evenly between those that are given."""
    parts = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in anchors]

    def mixed(place: float) -> str:
        k = min(int(place), len(parts) - 2)
        pairs = zip(parts[k], parts[k + 1], strict=True)
        return "#" + "".join(f"{round(a + (b - a) * (place - k)):02x}" for a, b in pairs)

    return [mixed(k * (len(parts) - 1) / (HEAT_LEVELS - 1)) for k in range(HEAT_LEVELS)]


class Palette:
    """Gives every optimizer of a report a slot; slots index the colours and markers above."""

    def __init__(self, optimizers: Iterable[str]) -> None:
        self._slots: dict[str, int] = {}
        for name in sorted(set(optimizers), key=lambda name: (name not in _FIRST, name != "adamw", name)):
            taken = self._slots.values()
            choice = [_FIRST[name], *_OTHERS] if name in _FIRST else _OTHERS
            self._slots[name] = next((slot for slot in choice if slot not in taken), len(taken) % len(LIGHT))

    def slot(self, optimizer: str) -> int:
        """Returns the optimizer's place in the tables of colours and markers."""
        return self._slots[optimizer]

    def symbol(self, optimizer: str, variant: int) -> int:
        """Returns the place of a line's marker, another one each time its optimizer's dashes begin anew."""
        return (self._slots[optimizer] + variant // DASHES) % MARKERS

    def published_slot(self, optimizer: str) -> int | None:
        """Returns the slot of the optimizer behind a published figure; None, for neutral grey, where it is unknown."""
        names = _PAPER.get(optimizer, ())
        return next((self._slots[name] for name in names if name in self._slots), _FIRST.get(optimizer))
