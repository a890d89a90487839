"""Reads suites of behavioural tests from JSON lines; nothing is unpickled. docs/behaviour.md describes the format."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from trainflat.core.errors import DamagedFile, InputError, UnknownName
from trainflat.core.rng import derive_seed
from trainflat.core.untrusted import parse_json, read_text, validated
from trainflat.evaluation.checklist.expectations import EXPECTATIONS
from trainflat.records.base import Data
from trainflat.records.behaviour import TestType

KEY = "evaluation.checklist"
MOVE = "Convert or write it anew; docs/behaviour.md has the format."
Kind = Literal["sentiment", "paraphrase", "reading"]
Example = str | tuple[str, str]  # a text; two questions, or a paragraph and a question


class Case(Data):
    """One case: an example, or an original and what was made of it, with what is expected of the answers."""

    test: Annotated[str, Field(min_length=1)]
    capability: Annotated[str, Field(min_length=1)]
    type: TestType
    expect: str  # of EXPECTATIONS
    examples: Annotated[list[Example], Field(min_length=1)]
    labels: list[int | str | None] | None = None  # right answers; null: any
    changes: list[tuple[str, str] | None] | None = None  # a word of the original, and what stands in its place

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.expect not in EXPECTATIONS:
            raise ValueError(f"expect {self.expect!r:.60} is none of {', '.join(EXPECTATIONS)}")
        asked = EXPECTATIONS[self.expect]
        if asked.labelled and self.labels is None:
            raise ValueError(f"a case that expects {self.expect!r} has labels")
        if asked.examples not in (None, len(self.examples)):
            raise ValueError(f"a case that expects {self.expect!r} has {asked.examples} examples")
        for count in (len(values) for values in (self.labels, self.changes) if values is not None):
            if count != len(self.examples):
                raise ValueError("there is one label, and one change, for each example")
        return self


class Header(Data):
    """The first line of a suite: what it is, and how much of it there must be, where it is said."""

    format: Literal[1]
    name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]
    kind: Kind
    source: str = ""
    licence: str = ""
    tests: int | None = None
    cases: int | None = None
    examples: int | None = None
    sha256: str | None = None  # over all bytes after the first line


class Suite(Data):
    """A suite of behavioural tests."""

    name: str
    kind: Kind
    sha256: str
    cases: list[Case]

    def sample(self, most: int, seed: int) -> list[Case]:
        """Draws at most ``most`` cases of each test, without replacement; they stay in the suite's order.

        The published code draws with replacement, which asks some cases twice.
        """
        by_test: dict[str, list[int]] = {}
        for place, case in enumerate(self.cases):
            by_test.setdefault(case.test, []).append(place)
        kept: list[int] = []
        for name, places in by_test.items():
            draw = np.random.default_rng(derive_seed(seed, name)).permutation(len(places))[:most]
            kept += sorted(places[i] for i in draw)
        return [self.cases[place] for place in kept]


def mini_sentiment() -> Path:
    """Finds our own tiny suite for sentiment: 74 hand-written cases about films, to try it all without a download."""
    return Path(str(files("trainflat"))) / "evaluation" / "checklist" / "mini-sentiment.jsonl"


SUITES: Mapping[str, Callable[[], Path]] = {"mini-sentiment": mini_sentiment}


def read_suite(name: str) -> Suite:
    """Reads a suite by its name in ``SUITES`` or its path.

    Raises:
        UnknownName: there is neither a suite nor a file of that name.
        DamagedFile: the file is no suite, or not what its first line says.
    """
    path = SUITES[name]() if name in SUITES else Path(name).expanduser()
    if not path.is_file():
        if "/" in name or path.suffix:
            raise InputError(f"{KEY}.suite: there is no file {name}. {MOVE}")
        raise UnknownName("suite", name, SUITES, f"{KEY}.suite")
    try:
        first, _, rest = read_text(path).partition("\n")
        header = validated(parse_json(first), Header, f"the first line of suite {path}", MOVE)
        # Not splitlines(), which also splits at characters that a text may hold, such as U+2028.
        lines = [parse_json(line) for line in rest.split("\n") if line.strip()]
    except DamagedFile:
        raise
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{path} is no suite of JSON lines: {error!s:.100}. {MOVE}") from error
    digest = hashlib.sha256(rest.encode()).hexdigest()
    if header.sha256 not in (None, digest):
        raise DamagedFile(f"suite {path} was changed after it was written: its hash does not fit. {MOVE}")
    cases: list[Case] = validated(lines, list[Case], f"case of suite {path} (counted from 0)", MOVE)
    _check(path, header, cases)
    return Suite(name=header.name, kind=header.kind, sha256=digest, cases=cases)


def _check(path: Path, header: Header, cases: Sequence[Case]) -> None:
    """Checks the counts, the kind of each case, and that all cases of a test have its capability and type."""
    tests: dict[str, tuple[str, str]] = {}
    for number, case in enumerate(cases):
        problem = _unlike(header.kind, case)
        if tests.setdefault(case.test, (case.capability, case.type)) != (case.capability, case.type):
            problem = f"test {case.test!r:.60} has two capabilities or types"
        if problem:
            raise DamagedFile(f"case of suite {path} (counted from 0): {number}: {problem}. {MOVE}")
    counted = {"tests": len(tests), "cases": len(cases), "examples": sum(len(case.examples) for case in cases)}
    for what, count in counted.items():
        said = getattr(header, what)
        if said not in (None, count):
            raise DamagedFile(f"suite {path} has {count} {what}, and its first line says {said}. {MOVE}")
    if not cases:
        raise InputError(f"suite {path} has no cases. {MOVE}")


def _unlike(kind: Kind, case: Case) -> str:
    """Says what of a case is not of the suite's kind; "" for nothing."""
    if any(isinstance(example, tuple) == (kind == "sentiment") for example in case.examples):
        return f"examples of kind {kind} are {'single texts' if kind == 'sentiment' else 'pairs of texts'}"
    classes = {"sentiment": (0, 1, 2), "paraphrase": (0, 1), "reading": ()}[kind]
    if not classes and EXPECTATIONS[case.expect].classes:
        return f"{case.expect!r} is about classes, and a suite of kind {kind} is about texts"
    if not all(gold is None or (gold in classes if classes else isinstance(gold, str)) for gold in case.labels or ()):
        return f"labels of kind {kind} are {', '.join(map(str, classes)) or 'texts'}"
    return ""
