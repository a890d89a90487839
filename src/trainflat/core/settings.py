"""Defines checks of options, and settings: the options of a member, complete, checked and frozen."""

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, ParamSpec, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, create_model
from pydantic_core import CoreSchema, core_schema

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.formatting import shown, wanted

P = ParamSpec("P")


class Check:
    """Checks an option, whose annotation carries it: ``decay: Annotated[float, Number("is a share", fits)]``.

    Recipes obey it without constructing the member, and so do constructors
    (:class:`~trainflat.core.configurable.Configurable`): a value is refused in the same words wherever it comes from.
    """

    def read(self, name: str, value: Any) -> Any:
        """Returns the value as the member keeps it.

        Raises:
            InputError: it cannot be used; names the option.
        """
        raise NotImplementedError

    def dump(self, value: Any) -> Any:
        """Returns the value as JSON."""
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Plain: no type comes before the check, which says in its own words what is wrong with one.
        return core_schema.with_info_plain_validator_function(
            lambda value, info: self.read(str(info.field_name or "it"), value),
            serialization=core_schema.plain_serializer_function_ser_schema(self.dump, when_used="json"),
        )


@dataclass(frozen=True)
class Number(Check):
    """Accepts numbers that fit, as a float; if ``whole`` as an int, which 5.0 is too. Booleans are no numbers.

    Example:
        >>> Number("is a share, in [0, 1)", lambda x: 0 <= x < 1).read("decay", 2)
        Traceback (most recent call last):
            ...
        trainflat.core.errors.InputError: decay is a share, in [0, 1), got 2.
    """

    words: str
    fits: Callable[[float], bool]
    whole: bool = False
    infinite: bool = False
    advice: str = "."

    def read(self, name: str, value: Any) -> float:
        # True is an int in Python, and a recipe that says `rho: yes` means no radius of 1. math.isfinite would overflow
        # on an integer such as 10**400.
        number = isinstance(value, Real) and not isinstance(value, bool)  # NumPy's too
        largest = math.inf if self.infinite else sys.float_info.max  # NaN compares false
        if not number or not abs(value) <= largest or not self.fits(value) or (self.whole and value != int(value)):
            raise InputError(f"{name} {self.words}, got {value!r}{self.advice}")
        return int(value) if self.whole else float(value)


@dataclass(frozen=True)
class Word(Check):
    """Accepts a word of a list, such as a Literal's; refuses any other and names the nearest."""

    words: tuple[Any, ...]
    kind: str = ""

    def read(self, name: str, value: Any) -> Any:
        known = [word for word in self.words if word is not None]
        if value in self.words:
            return value
        if not isinstance(value, str):
            raise InputError(f"{name} is {' or '.join(known)}, got {shown(value)}.")
        raise UnknownName(self.kind or name, value, known)


class Truth(Check):
    """Accepts true and false; 1 is neither."""

    def read(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InputError(f"{name} is true or false, got {value!r}.")
        return value


@dataclass(frozen=True)
class Maybe(Check):
    """Accepts None, and what another check accepts."""

    check: Check

    def read(self, name: str, value: Any) -> Any:
        return None if value is None else self.check.read(name, value)

    def dump(self, value: Any) -> Any:
        return None if value is None else self.check.dump(value)


@dataclass(frozen=True)
class _Named(Check):
    """Knows its option's name, which pydantic 2.12.0 leaves out where it validates a default."""

    check: Check
    option: str

    def read(self, name: str, value: Any) -> Any:
        return self.check.read(self.option, value)

    def dump(self, value: Any) -> Any:
        return self.check.dump(value)


def _named(annotation: Any, option: str) -> Any:
    """Names the checks that an annotation carries."""
    carried = getattr(annotation, "__metadata__", None)
    if carried is None:
        return annotation
    kept = [_Named(one, option) if isinstance(one, Check) else one for one in carried]
    return Annotated[(get_args(annotation)[0], *kept)]


def checks_of(function: Callable[..., Any]) -> dict[str, Check]:
    """Returns the checks that the parameters' annotations of a function or class carry, by parameter."""
    parameters = inspect.signature(function, eval_str=True).parameters
    carried = {key: getattr(p.annotation, "__metadata__", ()) for key, p in parameters.items()}
    return {key: one for key, metadata in carried.items() for one in metadata if isinstance(one, Check)}


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """Makes a constructor read its arguments by the checks of their annotations, before its body runs."""
    signature, checks = inspect.signature(init), cache(checks_of)

    @wraps(init)
    def reading(*args: P.args, **kwargs: P.kwargs) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, check in checks(init).items():
            bound.arguments[name] = check.read(name, bound.arguments[name])
        init(*bound.args, **bound.kwargs)

    return reading


def not_written(default: Any) -> Any:
    """Declares a field of settings that no recipe sets and no section shows, such as tensors to begin with."""
    return Field(default, exclude=True)


class Settings(BaseModel):
    """Base of one class per member, whose fields are the options that a recipe may set.

    ``Registry.read`` makes the class, once, and its instances.

    Attributes:
        name: Of the member, as in recipes.
        member: Class that :meth:`build` constructs.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True, protected_namespaces=()
    )
    name: ClassVar[str]
    member: ClassVar[Any]

    if TYPE_CHECKING:

        def __getattr__(self, option: str) -> Any: ...

    @classmethod
    def made(cls, name: str, member: type, fields: Mapping[str, tuple[Any, Any]]) -> type[Self]:
        """Makes a class of settings with these fields: annotation and default of each, ``...`` where there is none."""
        named: dict[str, Any] = {
            key: (_named(annotation, key), default) for key, (annotation, default) in fields.items()
        }
        kind: type[Self] = create_model(f"{member.__name__}Settings", __base__=cls, **named)
        kind.name, kind.member = name, member
        return kind

    @property
    def options(self) -> dict[str, Any]:
        """Returns the constructor arguments by name."""
        return dict(self)

    def build(self, *args: Any, **given: Any) -> Any:
        """Builds the member from these options and what the pipeline supplies."""
        return self.member(*args, **given, **self.options)

    def dump(self) -> dict[str, Any]:
        """Returns the options as JSON. One that came later to the family is left out where it is not used.

        So a recipe that was written before keeps its hash, and with it its folder and its records.
        """
        later = getattr(self.member, "later", ())
        return {key: v for key, v in self.model_dump(mode="json").items() if key not in later or v is not None}

    def __eq__(self, other: object) -> bool:
        """Compares as recipes do: a default that is a tuple equals the list that a recipe gives for it."""
        return isinstance(other, Settings) and self.section() == other.section()

    __hash__ = None  # type: ignore[assignment]  # options may be lists

    def section(self) -> dict[str, Any]:
        """Returns the section of a recipe that reads as these settings."""
        return {"name": self.name, **self.dump()}

    @classmethod
    def checks(cls) -> dict[str, Check]:
        """Returns the checks of the options that have one."""
        found = {key: [m for m in field.metadata if isinstance(m, Check)] for key, field in cls.model_fields.items()}
        return {key: check for key, [check] in ((k, v) for k, v in found.items() if v)}

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Reads the options of a section, of which every key is known.

        Raises:
            InputError: for the first value, in the order given, that cannot be used.
        """
        checks = cls.checks()
        for key, value in options.items():
            if key not in checks and not all(map(math.isfinite, _numbers(value))):  # JSON has no such numbers
                raise InputError(f"{key}: finite numbers are expected, got {value!r}")
        try:
            return cls(**options)
        except ValidationError as error:
            raise cls._first(error, options) from error

    @classmethod
    def _first(cls, error: ValidationError, options: Mapping[str, Any]) -> Exception:
        errors = error.errors()
        places = {str(one["loc"][0]) for one in errors}
        key = next(key for key in (*options, *cls.model_fields) if key in places)
        own = [one for one in errors if one["loc"][0] == key]
        if key in cls.checks():
            refusal: Exception = own[0]["ctx"]["error"]
            return refusal
        said = all(one["type"] == "value_error" for one in own)  # by a nested member, which says what it got
        return InputError(f"{key}: {wanted(own)}" + ("" if said else f", got {shown(options.get(key))}"))


Section = str | Mapping[str, Any] | Settings
"""What names a member: its name, a mapping such as ``{"name": "ema", "decay": 0.99}``, or settings read from one."""


def _numbers(value: Any) -> Iterator[float]:
    """Yields all floats in a value of a recipe, however deep."""
    if isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(one)
    elif isinstance(value, float):
        yield value
