"""Makes options of annotated class attributes, which constructors and recipes read alike."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from trainflat.core.settings import Check


class Configurable:
    """Base of members whose options are annotated attributes: a line each, and no constructor that copies them.

    An attribute whose annotation carries a :class:`Check` is an option, its value the default. In the signature, which
    recipes, ``trainflat list`` and the docs read, the options stand where the constructor has ``*args``, a class's own
    before inherited ones; ``**options`` stands for them too, any other ``**name`` stays. A subclass drops an inherited
    option by annotating it without a check. What several options decide together goes into a classmethod
    ``resolve(**options)``, which may refuse them and returns those that follow from others.

    Example:
        >>> from typing import Annotated
        >>> from trainflat.core.settings import Number
        >>> class Decay(Configurable):
        ...     share: Annotated[float, Number("is a share, in [0, 1)", lambda x: 0 <= x < 1)] = 0.5
        >>> inspect.signature(Decay).parameters["share"].default, Decay(share=0).share
        (0.5, 0.0)
    """

    __signature__: ClassVar[inspect.Signature]
    _checks: ClassVar[dict[str, Check]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        annotations: dict[str, Any] = {}
        for kind in cls.__mro__:
            for name, annotation in inspect.get_annotations(kind).items():
                annotations.setdefault(name, annotation)
        cls._checks = {name: check for name, annotation in annotations.items() if (check := _check(annotation))}
        options = [
            inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=getattr(cls, name), annotation=annotations[name]
            )
            for name in cls._checks
        ]
        cls.__signature__ = inspect.Signature(_with_options(cls.__init__, options))

    def __init__(self, *args: Any, **options: Any) -> None:
        for name in self.take_options(args, options):
            raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")

    def take_options(self, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Sets the options as attributes, each as its check reads it; returns the named arguments that are none.

        Raises:
            InputError: a value cannot be used.
            TypeError: there are more arguments than options, or one is given twice.
        """
        ordered = dict(zip(self._checks, args, strict=False))
        if len(args) > len(self._checks) or ordered.keys() & named.keys():
            raise TypeError(f"{type(self).__name__}() takes {', '.join(self._checks)}, each once")
        given = {**ordered, **named}
        options = {
            name: check.read(name, given.pop(name, getattr(type(self), name))) for name, check in self._checks.items()
        }
        resolve = getattr(type(self), "resolve", None)
        vars(self).update(options | dict(resolve(**options) if resolve is not None else {}))
        return given


def _check(annotation: Any) -> Check | None:
    return next((one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Check)), None)


def _with_options(init: Any, options: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    _, *own = inspect.signature(init, eval_str=True).parameters.values()
    placed: list[inspect.Parameter] = []
    for parameter in own:
        if parameter.kind is parameter.VAR_POSITIONAL:
            placed += options
        elif parameter.kind is not parameter.VAR_KEYWORD or parameter.name != "options":
            placed.append(parameter)
    return placed
