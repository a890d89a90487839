"""Holds the tables of named members that recipes, ``trainflat list`` and the contract tests read."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.settings import Section, Settings

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """Maps names to the members of one family.

    Args:
        kind: What a member is called in messages, such as ``"pruner"``.
        given: Constructor arguments that the pipeline supplies; a recipe may set all others.
        short: Inside another section, a member without options is written as its name alone.
        members: Name in recipes = class.

    Example:
        >>> class Shout:
        ...     '''Says it loudly.'''
        ...     def __init__(self, text: str, times: int = 1): self.said = text.upper() * times
        >>> voices = Registry("voice", given={"text"}, shout=Shout)
        >>> voices.build("shout", text="hi", times=2).said
        'HIHI'
        >>> voices["shuot"]
        Traceback (most recent call last):
            ...
        trainflat.core.errors.UnknownName: no voice is called 'shuot'. Did you mean 'shout'? Known: shout.
    """

    def __init__(self, kind: str, *, given: Collection[str] = (), short: bool = False, **members: type[T]) -> None:
        self.kind, self.short = kind, short
        self.given = frozenset(given)
        # Names in recipes are written with dashes; keyword arguments cannot be.
        self._members = {name.replace("_", "-"): member for name, member in members.items()}
        self._settings: dict[str, type[Settings]] = {}

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._members:
            raise UnknownName(self.kind, name, self._members, more="`trainflat list` shows all")
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __hash__(self) -> int:  # annotations that hold one are hashed; a Mapping that compares by content is not
        return id(self)

    def __len__(self) -> int:
        return len(self._members)

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """Returns the constructor arguments of a member that a recipe may set, with their defaults and annotations."""
        parameters = inspect.signature(self[name], eval_str=True).parameters
        return {
            key: parameter
            for key, parameter in parameters.items()
            if key not in self.given and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

    def summary(self, name: str) -> str:
        """Returns the first line of the member's docstring."""
        return (inspect.getdoc(self[name]) or "").split("\n", maxsplit=1)[0]

    def named(self, section: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Reads the name and the options of a recipe's section.

        Args:
            section: A name, or a mapping with one, such as ``{"name": "shout", "times": 2}``.

        Raises:
            InputError: it names none. Whether there is such a member is for others to say.
        """
        given = {"name": section} if isinstance(section, str) else section
        options = dict(given) if isinstance(given, Mapping) else {}
        if not isinstance(name := options.pop("name", None), str):
            article = "an" if self.kind[0] in "aeiou" else "a"
            example = f"{{name: {next(iter(self))}}}"
            raise InputError(f"name {article} {self.kind}: {', '.join(self)}; such as {example}, got {section!r}.")
        return name, options

    def settings(self, name: str) -> type[Settings]:
        """Returns the class of a member's settings, made from its constructor's signature at the first call."""
        if name not in self._settings or self._settings[name].member is not self[name]:
            fields = {
                key: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
                for key, parameter in self.options(name).items()
            }
            self._settings[name] = Settings.made(name, self[name], fields)
        return self._settings[name]

    def kind_of(self, name: str, options: Mapping[str, Any]) -> type[Settings]:
        """Returns the class of a section's settings; a family in which it depends on options overrides this."""
        return self.settings(name)

    def read(self, section: Section) -> Settings:
        """Reads a section of a recipe as settings: checked without a model, complete with defaults.

        Args:
            section: A name, a mapping with one, or settings, which are returned as they are.

        Raises:
            UnknownName: for a name or an option that does not exist, such as one that the pipeline supplies.
            InputError: for a value that cannot be used.

        Example:
            >>> class Shout:
            ...     def __init__(self, text: str, times: int = 1): self.said = text.upper() * times
            >>> voices = Registry("voice", given={"text"}, shout=Shout)
            >>> voices.read("shout").times, voices.read({"name": "shout", "times": 2}).build(text="hi").said
            (1, 'HIHI')
        """
        if isinstance(section, Settings):
            return section
        name, options = self.named(section)
        kind = self.kind_of(name, options)
        self._refuse_unknown(name, options, kind.model_fields)
        for key, field in kind.model_fields.items():
            if field.is_required() and key not in options:
                raise InputError(f"{self.kind} {name!r} needs {key}")
        return self.together(kind.of(options))

    def together(self, made: Settings) -> Settings:
        """Checks options that depend on each other; a member's ``resolve`` also says what open ones come to."""
        if not self.given:
            made.build()  # its constructor needs nothing but options, and checks them all
        resolve = getattr(made.member, "resolve", None)
        return made if resolve is None else made.model_copy(update=resolve(**made.options))

    def build(self, name: str, *args: Any, **options: Any) -> T:
        """Makes a member. Raises UnknownName for a name or an option that does not exist."""
        self._refuse_unknown(name, options, self.options(name), self.given)
        return self[name](*args, **options)

    def make(self, name: str, subject: Any, /, **options: Any) -> T:
        """Reads the options, as a recipe gives them, and builds the member on its subject, such as a model.

        Raises:
            UnknownName: for a name or an option that does not exist, such as one that the pipeline supplies.
            InputError: for a value that cannot be used.
        """
        made: T = self.read({"name": name, **options}).build(subject)
        return made

    def _refuse_unknown(
        self, name: str, options: Mapping[str, Any], known: Collection[str], more: Collection[str] = ()
    ) -> None:
        for key in options:
            if key not in known and key not in more:
                raise UnknownName(f"option of {self.kind} {name!r}", str(key), known)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """``Annotated[Settings, PRUNERS]`` is the type of a section that names a member of this family."""
        written = core_schema.plain_serializer_function_ser_schema(self._write, when_used="json")
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def _write(self, settings: Settings) -> str | dict[str, Any]:
        return settings.name if self.short and not settings.options else settings.section()
