"""Options as annotated attributes: one order, one check each, and what a constructor refuses."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import pytest

from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.settings import Maybe, Number, Word, checks_of

COUNT = Number("is a whole number >= 0", lambda x: x >= 0, whole=True)


class Basket(Configurable):
    fruit: Annotated[str, Word(("apple", "pear"))] = "apple"
    count: Annotated[int, COUNT] = 1
    colour: str = "green"  # no option: no check

    def __init__(self, owner: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.owner = owner


class Full(Basket):
    """Its own options come first; one of its parent's has another default, one is none any more."""

    weight: Annotated[float | None, Maybe(Number("is a weight", lambda x: x > 0))] = None
    count: Annotated[int, COUNT] = 9
    fruit: str = "pear"

    @classmethod
    def resolve(cls, weight: float | None, count: int) -> Mapping[str, Any]:
        if count == 0:
            raise InputError("a full basket is not empty.")
        return {"weight": 0.1 * count} if weight is None else {}


def test_the_signature_lists_own_options_before_inherited_ones() -> None:
    assert list(inspect.signature(Basket).parameters) == ["owner", "fruit", "count"]
    parameters = inspect.signature(Full).parameters
    assert {key: p.default for key, p in parameters.items()} == {
        "owner": inspect.Parameter.empty,
        "weight": None,
        "count": 9,
    }
    assert set(checks_of(Full)) == {"weight", "count"}


def test_options_are_attributes_as_their_checks_read_them() -> None:
    one = Basket("me", "pear", count=2.0)
    assert vars(one) == {"fruit": "pear", "count": 2, "owner": "me"} and type(one.count) is int
    assert vars(Full("me", 3)) == {"weight": 3.0, "count": 9, "owner": "me"} and Full("me").fruit == "pear"
    assert Full("me").weight == pytest.approx(0.9)  # follows from the count


@pytest.mark.parametrize(
    ("args", "options", "kind", "text"),
    [
        (("plum",), {}, InputError, "no fruit is called 'plum'"),
        ((3,), {}, InputError, "fruit is apple or pear, got 3"),
        (("pear", -1), {}, InputError, "count is a whole number >= 0, got -1"),
        (("pear", 1, 2), {}, TypeError, "takes fruit, count, each once"),
        (("pear",), {"fruit": "apple"}, TypeError, "takes fruit, count, each once"),
        ((), {"colour": "red"}, TypeError, "unexpected keyword argument 'colour'"),
    ],
)
def test_what_does_not_fit_is_refused(args: Any, options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        Basket("me", *args, **options)


def test_options_are_refused_together_too() -> None:
    with pytest.raises(InputError, match="not empty"):
        Full("me", count=0)
