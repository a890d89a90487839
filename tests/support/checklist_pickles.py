"""Archives as CheckList publishes them: pickles that name its classes, functions as dill writes them, numpy's values.

Made by modules that bear the names of the real ones while a pickle is written. The real files were not at hand; what
is known of them is in docs/behaviour.md.
"""

import io
import pickle
import sys
import tarfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

RAN: list[str] = []  # what a pickle ran while it was read


def _recorder(name: str) -> Any:
    def run(*given: Any) -> Any:
        RAN.append(name)
        return _recorder(name)

    return run


class Lambda:
    """An expectation as dill pickles it: a call that makes a function out of code."""

    def __reduce__(self) -> Any:
        module = sys.modules["dill._dill"]
        code = (2, 0, b"|\x00d\x01k\x03S\x00", ("x",))
        return module._create_function, (Made(module._create_code, code), {}, "<lambda>", None, ())


class Made:
    """A call inside a call."""

    def __init__(self, function: Any, given: Any) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> Any:
        return self.function, self.given


@contextmanager
def published() -> Iterator[dict[str, Any]]:
    """Stands in for the modules that the pickles name; yields their classes."""
    names = ("checklist", "checklist.test_suite", "checklist.test_types", "dill", "dill._dill")
    before = {name: sys.modules.get(name) for name in names}
    made = {name: ModuleType(name) for name in names}
    classes: dict[str, Any] = {}
    for module, each in (
        ("checklist.test_suite", ("TestSuite",)),
        ("checklist.test_types", ("MFT", "INV", "DIR")),
    ):
        for name in each:
            classes[name] = type(name, (), {"__module__": module})
            setattr(made[module], name, classes[name])
    for name in ("_create_function", "_create_code"):
        function = _recorder(name)
        function.__module__, function.__qualname__ = "dill._dill", name
        setattr(made["dill._dill"], name, function)
    sys.modules.update(made)
    try:
        yield classes
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


def suite(tests: Mapping[str, tuple[str, str, dict[str, Any]]]) -> bytes:
    """Pickles tests, given as capability, type and attributes by name."""
    with published() as classes:
        made = classes["TestSuite"]()
        made.tests, made.info = OrderedDict(), defaultdict(dict)
        made.format_example_fn = made.print_fn = None
        for name, (capability, kind, attributes) in tests.items():
            test = classes[kind]()
            usual = {"labels": None, "meta": None, "templates": None, "run_idxs": None, "name": None}
            vars(test).update(usual | {"expect": Lambda(), "capability": None} | attributes)
            made.tests[name] = test
            made.info[name].update(capability=capability, type=kind, description="")
        return pickle.dumps(made, protocol=4)


def archive(path: Path, *pickles: bytes) -> Path:
    """Writes an archive like ``sentiment_suite.tar.gz``."""
    with tarfile.open(path, "w:gz") as file:
        for place, content in enumerate(pickles):
            member = tarfile.TarInfo(f"suite{place or ''}.pkl")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


SENTIMENT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "single positive words": ("Vocabulary", "MFT", {"data": ["good", "great"], "labels": 2}),
    "Sentiment-laden words in context": (
        "Vocabulary",
        "MFT",
        {"data": ["It is good.", "It is bad."], "labels": [2, 0]},
    ),
    "simple negations: not negative": ("Negation", "MFT", {"data": list(np.array(["This isn't bad.", "Not awful ¡"]))}),
    "Q & A: no": ("SRL", "MFT", {"data": ["Is it bad? No", "Is it good? No"], "labels": np.array([1, 0])}),
    "typos": ("Robustness", "INV", {"data": [["a fine film", "a fien film", "a fine flim"]]}),
    "intensifiers": ("Vocabulary", "DIR", {"data": [["It is good.", "It is very good."]]}),
}
QQP: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Modifier: adj": ("Vocabulary", "MFT", {"data": [("Is it new?", "Is it very new?")], "labels": 0}),
    "(q, paraphrase(q))": ("Robustness", "DIR", {"data": [[("How can I?", "How do I?"), ("How do I?", "May I?")]]}),
    "Keep entitites, fill in with gibberish": (
        "NER",
        "DIR",
        {"data": [[("Who is Al?", "Who was Al?"), ("Who is Al?", "Who saw Al?")]]},
    ),
    "Testing implications": (
        "Logic",
        "DIR",
        {"data": [[("x", "a"), ("x", "b"), ("a", "b")]], "labels": [np.array([1, 1, 1])]},
    ),
    "of a later version": ("Logic", "DIR", {"data": [[("x", "a"), ("a", "x")]]}),
}
SQUAD: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Animal vs Vehicle": (
        "Taxonomy",
        "MFT",
        {
            "data": [[("Al has a cow and a van.", "What animal has Al?"), ("Al has a van.", "What vehicle has Al?")]],
            "labels": [["cow", "van"]],
        },
    ),
    "Change name everywhere": (
        "NER",
        "INV",
        {"data": [[("Al ran.", "Who ran?"), ("Bo ran.", "Who ran?")]], "meta": [[None, ("Al", "Bo")]]},
    ),
}
