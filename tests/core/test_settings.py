"""Settings: what a family's table makes of a constructor's signature, and who obeys an annotation's check."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.registry import Registry
from trainflat.core.settings import Number, Settings, Truth, Word

SHARE = Number("is a share, in [0, 1)", lambda x: 0 <= x < 1)


class Bell(Configurable):
    """Rings."""

    force: Annotated[float, SHARE] = 0.5
    times: Annotated[int, Number("is a whole number >= 1", lambda x: x >= 1, whole=True)] = 1
    loud: Annotated[bool, Truth()] = False
    tone: Annotated[str, Word(("low", "high"))] = "low"

    def __init__(self, tower: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.said = tower, self.force, self.times, self.loud, self.tone

    @classmethod
    def resolve(cls, **options: Any) -> dict[str, Any]:
        if options["loud"] and options["force"] == 0:
            raise InputError("no bell is loud without force.")
        return {"tone": "high"} if options["times"] > 5 else {}


class Clock:
    """Strikes; its options have types alone."""

    later = frozenset({"minutes"})

    def __init__(self, hours: int, kind: Literal["sand", "sun"] = "sun", minutes: list[int] | None = None) -> None:
        self.hours, self.kind, self.minutes = hours, kind, minutes


SOUNDS: Registry[Any] = Registry("sound", given={"tower"}, bell=Bell)
CLOCKS: Registry[Any] = Registry("clock", clock=Clock)


def test_a_section_becomes_whole_frozen_settings_of_one_class():
    settings = SOUNDS.read({"name": "bell", "times": 2.0})
    assert type(settings) is type(SOUNDS.read("bell")) and issubclass(type(settings), Settings)
    assert settings.section() == {"name": "bell", "force": 0.5, "times": 2, "loud": False, "tone": "low"}
    assert type(settings.times) is int and SOUNDS.read(settings) is settings
    assert SOUNDS.read(settings.section()) == settings != SOUNDS.read("bell")
    with pytest.raises(ValidationError):
        settings.times = 3
    assert settings.build("west").said == ("west", 0.5, 2, False, "low")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("force", 1, "force is a share, in [0, 1), got 1."),
        ("force", True, "force is a share, in [0, 1), got True."),
        ("force", float("nan"), "force is a share, in [0, 1), got nan."),
        ("force", 10**400, "force is a share, in [0, 1), got 1000"),
        ("force", "much", "force is a share, in [0, 1), got 'much'."),
        ("times", 1.5, "times is a whole number >= 1, got 1.5."),
        ("loud", 1, "loud is true or false, got 1."),
        ("tone", "flat", "no tone is called 'flat'. Known: high, low."),
    ],
)
def test_recipes_and_constructors_refuse_in_the_same_words(option: str, value: Any, message: str):
    for attempt in (lambda: SOUNDS.read({"name": "bell", option: value}), lambda: Bell("west", **{option: value})):
        with pytest.raises(InputError) as error:
            attempt()
        assert str(error.value).startswith(message)


def test_options_that_depend_on_each_other_are_resolved_without_a_member():
    assert SOUNDS.read({"name": "bell", "times": 6}).tone == "high"
    with pytest.raises(InputError, match="no bell is loud without force"):
        SOUNDS.read({"name": "bell", "loud": True, "force": 0})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "clock"}, "clock 'clock' needs hours"),
        ({"name": "clock", "hours": 1.5}, r"hours: a whole number is expected, got 1\.5"),
        ({"name": "clock", "hours": 1, "kind": "wall"}, "kind: 'sand' or 'sun' is expected, got 'wall'"),
        ({"name": "clock", "hours": 1, "minutes": [1, float("inf")]}, r"minutes: finite numbers are expected, got"),
        ({"hours": 1}, "name a clock: clock; such as"),
        (5, "name a clock: clock; such as"),
    ],
)
def test_types_are_checked_where_there_is_no_check(section: Any, message: str):
    with pytest.raises(InputError, match=message):
        CLOCKS.read(section)


def test_names_and_options_that_do_not_exist_are_shown_with_the_nearest():
    with pytest.raises(UnknownName, match=r"no clock is called 'clok'\. Did you mean 'clock'"):
        CLOCKS.read("clok")
    with pytest.raises(UnknownName, match="no option of sound 'bell' is called 'tower'"):
        SOUNDS.read({"name": "bell", "tower": "west"})


def test_an_option_that_came_later_is_written_only_where_it_is_used():
    assert CLOCKS.read({"name": "clock", "hours": 1}).section() == {"name": "clock", "hours": 1, "kind": "sun"}
    assert CLOCKS.read({"name": "clock", "hours": 1, "minutes": [2]}).dump()["minutes"] == [2]
