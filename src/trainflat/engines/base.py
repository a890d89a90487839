"""Defines the base class of engines: token arrays in, logits out, without torch or transformers.

NumPy alone: a file is run without torch and transformers in memory, as its users run it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainflat.core.errors import InputError

Tokens = Mapping[str, NDArray[np.int64]]
"""``input_ids`` and the tokenizer's other arrays, each [N, T]: N rows of T tokens."""


class Engine(ABC):
    """Runs one exported model on the CPU with a fixed number of threads.

    Attributes:
        suffixes: Suffixes of the files that it opens.
        packages: Modules that it imports.
        extra: The ``trainflat[extra]`` that installs these.
        inputs: Names of the model's input arrays.
        outputs: Names of its output arrays: ``logits`` [N, classes], or ``start_logits`` and ``end_logits`` [N, T].
        types: Dtypes of the inputs by name, such as int32; int64 where there is none.
    """

    suffixes: tuple[str, ...]
    packages: tuple[str, ...] = ()
    extra = ""

    def __init__(self, inputs: Mapping[str, Any] | Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)
        self.types = dict(inputs) if isinstance(inputs, Mapping) else {}
        # Exporters name a single output as they like ("output_0", "logits"), and it can only be the logits.
        self.outputs = ("logits",) if len(outputs) == 1 else tuple(outputs)

    @classmethod
    @abstractmethod
    def open(cls, path: Path, threads: int) -> "Engine":
        """Opens a file, to be run with ``threads`` threads."""

    @abstractmethod
    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        """Runs one forward pass over the arrays in ``inputs``; returns an array for each name in ``outputs``."""

    def taken(self, tokens: Tokens) -> dict[str, NDArray[Any]]:
        """Selects the arrays that the model takes, cast to its dtypes.

        Raises:
            InputError: the model takes an array that ``tokens`` lacks.
        """
        for name in self.inputs:
            if name not in tokens:
                raise InputError(
                    f"the file takes {name}, and the tokenizer returns only {', '.join(tokens)}. Export the model "
                    "again, with its tokenizer's inputs."
                )
        return {name: tokens[name].astype(self.types.get(name, np.int64), copy=False) for name in self.inputs}

    @classmethod
    def check_installed(cls) -> None:
        """Raises InputError for libraries of the engine that are not installed."""
        require_packages("backend", cls.packages, cls.extra)


def require_packages(what: str, packages: Sequence[str], extra: str) -> None:
    """Raises InputError for packages that are not installed, with the command that installs them."""
    # find_spec does not import: a missing library is reported before another one has loaded for seconds.
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"this {what} needs {', '.join(missing)}. Install: pip install 'trainflat[{extra}]'")
