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

# Modules and packages by class; those that a Python version does not have are passed over.
PARTS: dict[str, tuple[str, ...]] = {
    "concurrency": (
        "asyncio",
        "multiprocessing",
        "threading",
        "concurrent",
        "queue",
        "subprocess",
        "sched",
        "selectors",
    ),
    "files": (
        *(
            "tarfile",
            "zipfile",
            "shutil",
            "pathlib",
            "os",
            "posixpath",
            "ntpath",
            "genericpath",
            "tempfile",
            "_pyio",
            "gzip",
        ),
        *("bz2", "lzma", "glob", "fnmatch", "filecmp", "fileinput", "shelve", "dbm", "stat"),
    ),
    "interface": ("tkinter", "turtle"),
    "mail": ("email", "mailbox", "imaplib", "smtplib", "poplib", "nntplib", "quopri", "mailcap", "mimetypes"),
    "network": (
        *(
            "http",
            "urllib",
            "ftplib",
            "telnetlib",
            "socket",
            "socketserver",
            "ssl",
            "ipaddress",
            "xmlrpc",
            "wsgiref",
            "cgi",
        ),
        *("webbrowser", "netrc"),
    ),
    "numbers": (
        *(
            "_pydecimal",
            "statistics",
            "fractions",
            "random",
            "numbers",
            "datetime",
            "_pydatetime",
            "calendar",
            "zoneinfo",
        ),
        *("heapq", "bisect", "colorsys", "secrets", "_strptime"),
    ),
    "testing": (
        *(
            "unittest",
            "doctest",
            "pdb",
            "bdb",
            "inspect",
            "pydoc",
            "trace",
            "traceback",
            "dis",
            "ast",
            "timeit",
            "pstats",
        ),
        *("symtable", "cProfile", "tracemalloc", "pyclbr"),
    ),
    "text": (
        *("xml", "html", "json", "re", "csv", "configparser", "difflib", "textwrap", "string", "codecs", "encodings"),
        *("locale", "gettext", "pprint", "shlex", "tomllib", "plistlib", "tokenize"),
    ),
}
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "__pycache__"}
MOST = 450  # sentences per class, so that none outweighs the others
VALIDATION = 0.2  # share of the sentences


class StdlibDocs(TextTask):
    """Docstrings of the standard library: which part of it does a sentence describe? Needs no data. Accuracy.

    The sources of the running Python are read, never imported. A sentence occurs once; whether it is trained on or
    validated depends on its own hash, so the splits are the same for every seed. Another Python version has other
    sentences: the fingerprint tells.

    Args:
        data: Not read; all tasks take one.
        seed: Draws ``holdout`` and ``rows``.
        holdout: Share of the training rows to score instead of the validation split, for tuning.
        rows: Train only on this many rows.
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


@lru_cache(maxsize=4)  # two seconds of parsing, for every member of a grid
def read_splits(library: Path) -> dict[str, Rows]:
    """Reads the sentences below a standard library's folder, as the splits "train" and "validation".

    Raises:
        InputError: its sources are not there, as in a frozen or zipped Python.
    """
    found: dict[str, set[int]] = {}
    for label, modules in enumerate(PARTS.values()):
        for path in _sources(library, modules):
            for sentence in _sentences(path):
                found.setdefault(sentence, set()).add(label)
    # A sentence that two parts share tells nothing about where it comes from.
    rows = [(_share(sentence), sentence, labels.pop()) for sentence, labels in found.items() if len(labels) == 1]
    kept = [row for label in range(len(PARTS)) for row in sorted(row for row in rows if row[2] == label)[:MOST]]
    if any(not any(row[2] == label for row in kept) for label in range(len(PARTS))):
        raise InputError(
            f"{library} has no sources of the standard library to read. Use a Python installed with its .py files."
        )
    kept.sort(key=lambda row: row[1])
    parts = {
        "train": [row for row in kept if _share(row[1] + "\n") >= VALIDATION],
        "validation": [row for row in kept if _share(row[1] + "\n") < VALIDATION],
    }
    return {
        name: Rows({"text": [row[1] for row in part], LABEL: [row[2] for row in part]}, "embedded")
        for name, part in parts.items()
    }


def sentences_of(*modules: str) -> list[str]:
    """Reads the sentences of some modules of the running Python's library, each once."""
    paths = _sources(Path(sysconfig.get_path("stdlib")), modules)
    return list(dict.fromkeys(sentence for path in paths for sentence in _sentences(path)))


def _share(sentence: str) -> float:
    """Returns a number in [0, 1) that depends on the sentence alone."""
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
            warnings.simplefilter("ignore")  # escapes that later versions will refuse
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
        # Docstrings stand in statements alone; expressions are most of a tree.
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
