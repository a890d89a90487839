"""Reads untrusted text within bounded time and memory, or refuses it."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainflat.core.errors import DamagedFile

_LARGEST_TEXT = 2**26  # bytes; this package writes far smaller files, and parsed JSON takes up to 20 times the memory
DEEPEST = 100  # nesting: Python's recursion limit, which recursive readers of the value would reach, is 1000


def read_text(path: Path) -> str:
    """Reads an untrusted text file.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is a pipe, a device, far too large, or not UTF-8.
    """
    # O_NONBLOCK, as opening a pipe blocks until somebody writes into it. The kind is asked of the open file, not of the
    # path, which could be replaced in between.
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(_LARGEST_TEXT + 1)
    if len(content) > _LARGEST_TEXT:
        raise ValueError(f"it has over {_LARGEST_TEXT >> 20} MB")
    return content.decode("utf8")


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def parse_json(text: str, *, finite: bool = True, **options: Any) -> Any:
    """Parses untrusted JSON; passes ``options`` on to ``json.loads``.

    Raises:
        ValueError: the text is not JSON, or has values that :func:`refuse_odd` refuses.
    """
    try:
        value = json.loads(text, **options)
    except RecursionError as error:
        raise ValueError(f"values are nested over {DEEPEST} deep") from error
    refuse_odd(value, finite=finite)
    return value


def refuse_odd(value: Any, *, finite: bool = True) -> None:
    """Refuses values of JSON and YAML that would fail later, far from the file's name.

    Args:
        value: The parsed value.
        finite: Whether to refuse infinity and NaN, too.

    Raises:
        ValueError: values are nested over 100 deep, a number is not finite or larger than any float, or a text holds
            half of a character.
    """
    rest = [(value, 0)]  # a stack: recursion would fail on the depth that it is to refuse
    while rest:
        one, depth = rest.pop()
        if depth > DEEPEST:
            raise ValueError(f"values are nested over {DEEPEST} deep")
        if isinstance(one, dict | list):
            inner = [*one, *one.values()] if isinstance(one, dict) else one
            rest += [(item, depth + 1) for item in inner]
        elif isinstance(one, float | int if finite else int) and not abs(one) <= sys.float_info.max:
            raise ValueError("it holds a number that is not finite, or too large")
        elif isinstance(one, str) and not one.isascii():
            one.encode()  # fails on a lone surrogate, with UnicodeEncodeError, which is a ValueError


def validated(value: Any, kind: Any, fault: str, move: str) -> Any:
    """Validates a value as ``kind`` by pydantic.

    Raises:
        DamagedFile: the value is not a ``kind``; its text is ``fault``, the first key that does not fit, and ``move``.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedFile(f"{fault}: {f'{where:.100}: ' if where else ''}{first['msg']}. {move}") from error
