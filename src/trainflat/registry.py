"""Tables of named members: what recipes, ``trainflat list`` and the contract tests read."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from trainflat.errors import UnknownName

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """The members of one family by name.

    Args:
        kind: What a member is called in messages, such as ``"pruner"``.
        given: Constructor arguments that the pipeline supplies; a recipe may set all others.
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
        trainflat.errors.UnknownName: no voice is called 'shuot'. Did you mean 'shout'? Known: shout.
    """

    def __init__(self, kind: str, *, given: Collection[str] = (), **members: type[T]) -> None:
        self.kind = kind
        self.given = frozenset(given)
        # Names in recipes are written with dashes; keyword arguments cannot be.
        self._members = {name.replace("_", "-"): member for name, member in members.items()}

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._members:
            raise UnknownName(self.kind, name, self._members)
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The constructor arguments of a member that a recipe may set, with their defaults and annotations."""
        parameters = inspect.signature(self[name], eval_str=True).parameters
        return {
            key: parameter
            for key, parameter in parameters.items()
            if key not in self.given and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

    def summary(self, name: str) -> str:
        """First line of the member's docstring."""
        return (inspect.getdoc(self[name]) or "").split("\n", maxsplit=1)[0]

    def build(self, name: str, *args: Any, **options: Any) -> T:
        """Makes a member.

        Raises:
            UnknownName: for a name or an option that does not exist.
        """
        known = self.options(name)
        for key in options:
            if key not in known and key not in self.given:
                raise UnknownName(f"option of {self.kind} {name!r}", key, known)
        return self[name](*args, **options)
