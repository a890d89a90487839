"""Converts the published suites of CheckList (Ribeiro et al., ACL 2020) to the JSON lines that trainflat reads.

They are archives with one pickle each (`sentiment_suite.tar.gz`, `qqp_suite.tar.gz`, `squad_suite.tar.gz` of
github.com/marcotcr/checklist, MIT), and pickles may run code when they are loaded. Here none does: every global of the
pickle, whatever its name, is replaced by a class that keeps what it is given and does nothing, and a global of a module
that has no business in a suite is refused. The package never unpickles, which is why this is no part of it; it stands
alone, on the standard library.

Expectations are pickled as code, which is not read. They are named by suite and test, and trainflat has functions of
these names; a test that nothing is known of is left out, and said.

Run as ``python tools/convert_checklist.py SUITE.tar.gz... --out FOLDER``. A suite whose counts are not those of the
published file is said and not written, unless ``--any-count`` is given; then the exit code is 1, and the others are
converted all the same.
"""

import argparse
import hashlib
import io
import json
import pickle
import struct
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = {"sentiment": "sentiment", "qqp": "paraphrase", "squad": "reading"}
Counts = tuple[int, int, int, dict[str, int]]
# Tests, cases and examples of the published files, and tests by capability as far as they were counted.
PUBLISHED: dict[str, Counts] = {
    "sentiment": (38, 86420, 178578, {"Vocabulary": 10, "Negation": 9, "Robustness": 5, "SRL": 5, "Fairness": 4}
                  | {"NER": 3, "Temporal": 2}),
    "qqp": (53, 63216, 207301, {"NER": 11, "Vocabulary": 8, "SRL": 8, "Logic": 7, "Temporal": 5, "Taxonomy": 4}
            | {"Robustness": 4, "Negation": 4, "Coref": 2}),
    "squad": (24, 13311, 71293, {}),
}  # fmt: skip
# By type, and by name where a test expects something else.
USUAL = {"MFT": "label", "INV": "same"}
EXPECTED: dict[str, dict[str, str]] = {
    "sentiment": {
        "intensifiers": "more-confident",
        "reducers": "less-confident",
        '"used to" should reduce': "less-confident",
        "add positive phrases": "more-positive",
        "add negative phrases": "less-positive",
        "simple negations: not negative": "not-negative",
        "simple negations: I thought x was negative, but it was not (should be neutral or positive)": "not-negative",
        "Hard: Negation of negative with neutral stuff in the middle (should be positive or neutral)": "not-negative",
        "Q & A: no": "neutral-allowed",
    },
    "qqp": {
        "Change first name in one of the questions": "no-longer-duplicate",
        "Change first and last name in one of the questions": "no-longer-duplicate",
        "Change location in one of the questions": "no-longer-duplicate",
        "Change numbers in one of the questions": "no-longer-duplicate",
        "(q, paraphrase(q))": "label",
        "Keep entitites, fill in with gibberish": "label",  # spelled so
        "Testing implications": "implied",
    },
    "squad": {
        "Change name everywhere": "same-but-changes",
        "Change location everywhere": "same-but-changes",
    },
}
# Of tests whose code holds the labels: that of the first example, which may be any, and of the others.
LABELS: dict[str, tuple[int | None, int]] = {
    "(q, paraphrase(q))": (1, 1),
    "Keep entitites, fill in with gibberish": (None, 0),
}
MODULES = {"__builtin__", "builtins", "checklist", "collections", "copy_reg", "copyreg", "dill", "functools"}
MODULES |= {"_codecs", "munch", "numpy", "types"}
LARGEST = 2**26  # bytes of a text file that trainflat reads


class Refused(Exception):
    """Raised for a file that cannot be converted; its text is one line."""


class Inert:
    """Stands for any class, function or object of the pickle: keeps what it is given, and runs nothing."""

    path = ""
    given: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *given: Any, **_: Any) -> "Inert":
        self = object.__new__(cls)
        self.given, self.state, self.items = given, None, {}
        return self

    def __init__(self, *given: Any, **_: Any) -> None:
        """Takes what it is called with, which ``__new__`` kept."""

    def __call__(self, *given: Any, **_: Any) -> "Inert":
        return Inert(*given)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, item: Any) -> None:
        """Keeps nothing: no list of a suite is a subclass."""

    def add(self, item: Any) -> None:
        """Keeps nothing: no set of a suite is a subclass."""

    def attribute(self, name: str) -> Any:
        """Returns an attribute of the object that was pickled, None where it had none."""
        return self.state.get(name) if isinstance(self.state, dict) else None

    def mapping(self) -> dict[Any, Any]:
        """Returns the items of a pickled dictionary."""
        first = self.given[0] if self.given and isinstance(self.given[0], list) else []
        return {**dict(first), **self.items}


class Reader(pickle.Unpickler):
    """Reads a pickle without importing or calling anything that it names."""

    def find_class(self, module: str, name: str) -> type[Inert]:
        if module.partition(".")[0] not in MODULES:
            raise Refused(f"it names {module}.{name}, which no suite needs")
        return type(name, (Inert,), {"path": f"{module}.{name}"})


def tests_of(pickled: bytes) -> Iterator[tuple[str, str, str, Inert]]:
    """Yields name, capability, type and object of every test of a suite."""
    suite = Reader(io.BytesIO(pickled)).load()
    tests, about = ((suite.attribute(name) if isinstance(suite, Inert) else None) for name in ("tests", "info"))
    if not isinstance(tests, Inert | dict) or not isinstance(about, Inert | dict):
        raise Refused("its pickle is no suite of tests")
    known = _mapping(about)
    for name, test in _mapping(tests).items():
        info = _mapping(known.get(name, {}))
        capability = info.get("capability") or test.attribute("capability")
        yield str(name), str(capability), str(info.get("type") or type(test).__name__), test


def cases_of(suite: str, name: str, kind: str, test: Inert) -> Iterator[dict[str, Any]]:
    """Yields a test's cases without its name; nothing where it is not known what is expected."""
    expect = EXPECTED[suite].get(name) or ("text" if (suite, kind) == ("squad", "MFT") else USUAL.get(kind))
    labels, meta, data = (plain(test.attribute(key)) for key in ("labels", "meta", "data"))
    labelled = expect in ("label", "text", "neutral-allowed")
    if expect is None or (labelled and labels is None and name not in LABELS):
        return
    for place, examples in enumerate(data):
        many = examples if isinstance(examples, list) else [examples]
        case: dict[str, Any] = {"expect": expect, "examples": many}
        if labelled:
            first, other = LABELS.get(name, (None, 0))
            filled = [first, *[other] * (len(many) - 1)]
            case["labels"] = filled if name in LABELS else _each(_at(labels, place), len(many))
        if expect == "same-but-changes" and meta is not None:
            case["changes"] = _each(_at(meta, place), len(many))
        yield case


def convert(path: Path, out: Path, *, any_count: bool) -> tuple[Path, list[str]]:
    """Converts one archive; returns the file that was written and what is to be said of it.

    Raises:
        Refused: it is none of the three suites, holds what they do not, or has other counts.
    """
    suite = next((name for name in KINDS if path.name.startswith(f"{name}_suite")), None)
    if suite is None:
        raise Refused(f"its name is none of {', '.join(f'{name}_suite.tar.gz' for name in KINDS)}")
    lines: list[dict[str, Any]] = []
    said: list[str] = []
    tests, examples = Counter[str](), 0
    try:
        for name, capability, kind, test in tests_of(_pickled(path)):
            tests[capability] += 1
            before = len(lines)
            for case in cases_of(suite, name, kind, test):
                examples += len(case["examples"])
                lines.append({"test": name, "capability": capability, "type": kind, **case})
            if len(lines) == before:
                said.append(f"left out: {name!r} ({kind}), of which it is not known what it expects")
    except (pickle.UnpicklingError, AttributeError, EOFError, IndexError, TypeError, ValueError) as error:
        raise Refused(f"it cannot be read as a pickle of a suite ({type(error).__name__}: {error})") from error
    said += _miscounted(suite, tests, len(lines), examples)
    if said and not any_count:
        raise Refused("; ".join(said))
    return _write(out / f"{suite}.jsonl", suite, lines, path), said


def plain(value: Any) -> Any:
    """Returns strings, numbers, tuples and lists as they are, and numpy's as Python's."""
    if isinstance(value, Inert):
        return _of_numpy(value)
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise Refused(f"a case holds a {type(value).__name__}")


def _of_numpy(value: Inert) -> Any:
    """Reads ``scalar(dtype, bytes)`` and ``_reconstruct(...)`` with the state (version, shape, dtype, order, bytes)."""
    if value.path.endswith(".scalar") and len(value.given) == 2:
        [found] = _values(value.given[0], value.given[1])
        return found
    if value.path.endswith("._reconstruct") and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, _, content = value.state
        if len(shape) == 1:
            return plain(content) if isinstance(content, list) else _values(dtype, content)
    raise Refused(f"a case holds a {value.path or 'computed object'}")


def _values(dtype: Inert, content: bytes) -> list[Any]:
    code = str(dtype.given[0])
    if code[0] == "U":
        size = 4 * int(code[1:])
        parts = (content[i : i + size] for i in range(0, len(content), size))
        return [part.decode("utf-32-le").rstrip("\0") for part in parts]
    if code in ("i8", "i4"):
        return list(struct.unpack(f"<{len(content) // int(code[1])}{'q' if code == 'i8' else 'i'}", content))
    raise Refused(f"a case holds numpy's {code}")


def _mapping(value: Any) -> dict[Any, Any]:
    return value.mapping() if isinstance(value, Inert) else value


def _at(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list) else values


def _each(value: Any, count: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * count


def _miscounted(suite: str, tests: Counter[str], cases: int, examples: int) -> Iterator[str]:
    *totals, by_capability = PUBLISHED[suite]
    found = (tests.total(), cases, examples)
    for what, count, published in zip(("tests", "cases", "examples"), found, totals, strict=True):
        if count != published:
            yield f"{count:,} {what}, where the published file has {published:,}"
    for capability, published in by_capability.items():
        if tests[capability] != published:
            yield f"{tests[capability]} tests of {capability}, where the published file has {published}"


def _pickled(path: Path) -> bytes:
    try:
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.isfile() and member.name.endswith(".pkl")]
            if len(members) != 1:
                raise Refused(f"it holds {len(members)} pickles, and a suite is one")
            file = archive.extractfile(members[0])
            assert file is not None, "it is a file"
            return file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Refused(f"it cannot be read ({error})") from error


def _write(path: Path, suite: str, lines: list[dict[str, Any]], source: Path) -> Path:
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    about = {
        "format": 1,
        "name": f"checklist-{suite}",
        "kind": KINDS[suite],
        "source": f"marcotcr/checklist, {source.name}, sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}",
        "licence": "MIT",
        "tests": len({line["test"] for line in lines}),
        "cases": len(lines),
        "examples": sum(len(line["examples"]) for line in lines),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    if len(body) > LARGEST - 10_000:
        raise Refused(f"it would have {len(body) >> 20} MB, and trainflat reads {LARGEST >> 20}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(json.dumps(about).encode() + b"\n" + body)
    return unfinished.replace(path)


def main(given: list[str] | None = None) -> int:
    """Converts the archives that are named; returns 1 where one was not written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="+", type=Path, metavar="SUITE.tar.gz")
    parser.add_argument("--out", type=Path, default=Path("suites"))
    parser.add_argument("--any-count", action="store_true", help="write suites whose counts are not the published ones")
    options = parser.parse_args(given)
    refused = 0
    for path in options.suites:
        try:
            written, said = convert(path, options.out, any_count=options.any_count)
        except Refused as error:
            refused = 1
            print(f"{path}: not converted: {error}.", file=sys.stderr)
        else:
            print(f"{path}: {written}" + "".join(f"\n  {line}" for line in said))
    return refused


if __name__ == "__main__":
    sys.exit(main())
