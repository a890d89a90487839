"""Makes a task of the docstrings of the standard library, real text that every Python brings along."""

import ast
import hashlib
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from trainflat.core.errors import InputError
from trainflat.tasks.base import Head
from trainflat.tasks.rows import Rows
from trainflat.tasks.splits import arrange
from trainflat.tasks.text import LABEL, TextTask

# Modules and packages by class, each a topic that its docstrings show. Those missing from a Python version are skipped.
_MODULES = {
    "concurrency": "asyncio multiprocessing threading concurrent queue subprocess sched selectors",
    "files": "tarfile zipfile shutil pathlib os posixpath ntpath genericpath tempfile _pyio gzip bz2 lzma glob fnmatch "
    "filecmp fileinput shelve dbm stat",
    "interface": "tkinter turtle",
    "mail": "email mailbox imaplib smtplib poplib nntplib quopri mailcap mimetypes",
    "network": "http urllib ftplib telnetlib socket socketserver ssl ipaddress xmlrpc wsgiref cgi webbrowser netrc",
    "numbers": "_pydecimal statistics fractions random numbers datetime _pydatetime calendar zoneinfo heapq bisect "
    "colorsys secrets _strptime",
    "testing": "unittest doctest pdb bdb inspect pydoc trace traceback dis ast timeit pstats symtable cProfile "
    "tracemalloc pyclbr",
    "text": "xml html json re csv configparser difflib textwrap string codecs encodings locale gettext pprint shlex "
    "tomllib plistlib tokenize",
}
PARTS: dict[str, tuple[str, ...]] = {label: tuple(names.split()) for label, names in _MODULES.items()}
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "__pycache__"}
MOST = 450  # sentences per class: large packages would otherwise outweigh the others
VALIDATION = 0.2  # share of the sentences


class StdlibDocs(TextTask):
    """Docstrings of the standard library: which part of it does a sentence describe? Needs no data. Accuracy.

    The sources of the running Python are parsed, never imported. Every sentence occurs once, and a hash of its text
    decides its split, so that the splits are the same for every seed. Other Python versions have other sentences, and
    another fingerprint.

    Args:
        data: Ignored; present because every task takes it.
        seed: Seed of ``holdout`` and ``rows``.
        holdout: Share of the training rows to score instead of the validation split, for tuning.
        rows: Number of training rows to draw; all by default.
    """

    def __init__(
        self, *, data: Path | None = None, seed: int = 0, holdout: float = 0.0, rows: int | None = None
    ) -> None:
        del data
        splits = read_splits(Path(sysconfig.get_path("stdlib")))
        training, evaluation = arrange(
            splits.__getitem__,
            train="train",
            evaluate=["validation"],
            holdout=holdout,
            rows=rows,
            seed=seed,
            by_class=True,
        )
        super().__init__("stdlib-docs", Head("classification", tuple(PARTS)), ("accuracy",), training, evaluation)


@lru_cache(maxsize=4)  # parsing takes two seconds, which every member of a grid would pay
def read_splits(library: Path) -> dict[str, Rows]:
    """Reads the sentences below the standard library's folder, as the splits "train" and "validation".

    Raises:
        InputError: there are no sources, as in a frozen or zipped Python.
    """
    kept = _labelled_sentences(library)
    if {label for _, label in kept} != set(range(len(PARTS))):
        raise InputError(
            f"{library} has no sources of the standard library to read. Use a Python installed with its .py files."
        )
    splits: dict[str, list[tuple[str, int]]] = {"train": [], "validation": []}
    for sentence, label in sorted(kept):
        # Not the hash that chose the sentences of a class: all of a large class have a low one.
        splits["validation" if _uniform(sentence + "\n") < VALIDATION else "train"].append((sentence, label))
    return {
        name: Rows({"text": [text for text, _ in part], LABEL: [label for _, label in part]}, "embedded")
        for name, part in splits.items()
    }


def _labelled_sentences(library: Path) -> list[tuple[str, int]]:
    """Reads up to ``MOST`` sentences per class, those with the lowest hashes; none that two classes share."""
    found: dict[str, set[int]] = {}
    for label, modules in enumerate(PARTS.values()):
        for path in _sources(library, modules):
            for sentence in _sentences(path):
                found.setdefault(sentence, set()).add(label)
    by_class: list[list[str]] = [[] for _ in PARTS]
    for sentence, labels in found.items():
        if len(labels) == 1:
            by_class[labels.pop()].append(sentence)
    return [(text, label) for label, texts in enumerate(by_class) for text in sorted(texts, key=_uniform)[:MOST]]


def sentences_of(*modules: str) -> list[str]:
    """Reads the sentences of some modules of the running Python's standard library, each once."""
    paths = _sources(Path(sysconfig.get_path("stdlib")), modules)
    return list(dict.fromkeys(sentence for path in paths for sentence in _sentences(path)))


def _uniform(sentence: str) -> float:
    """Hashes a sentence to a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:6], "big") / 2**48


def _sources(library: Path, modules: tuple[str, ...]) -> Iterator[Path]:
    for module in modules:
        single = library / f"{module}.py"
        paths = [single] if single.is_file() else sorted((library / module).rglob("*.py"))
        yield from (path for path in paths if not SKIPPED.intersection(path.relative_to(library).parts))


def _sentences(path: Path) -> Iterator[str]:
    """Yields the first sentence of every docstring of a source file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes, which only later versions refuse
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            sentence = first_sentence(ast.get_docstring(node) or "")
            if sentence:
                yield sentence
        # Only statements hold docstrings; expressions are most of a tree.
        nodes.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


def first_sentence(docstring: str) -> str | None:
    """Returns the first sentence if it is one of 4 to 40 words that ends with a full stop.

    Example:
        >>> first_sentence("Return the sum of\\n    all numbers. Raises nothing.")
        'Return the sum of all numbers.'
        >>> first_sentence("Internal.") is None
        True
    """
    paragraph = " ".join(docstring.split("\n\n", maxsplit=1)[0].split())
    match = re.match(r"[A-Z][^\x00-\x1f]*?[a-z)\]'\"]\.(?=\s|$)", paragraph)
    return match[0] if match and 4 <= len(match[0].split()) <= 40 and ">>>" not in match[0] else None
