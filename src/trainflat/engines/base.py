"""Defines the base class of engines: token arrays in, logits out, without torch or transformers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainflat.core.errors import InputError

Tokens = Mapping[str, NDArray[np.int64]]
"""``input_ids`` [N, T] and others of its shape; N rows of T tokens."""


class Engine(ABC):
    """Runs one exported model on the CPU with a fixed number of threads.

    Attributes:
        suffixes: Of the files that it opens.
        packages: Modules that it needs.
        extra: Of ``pip install trainflat[...]``, which brings them.
        inputs: Names of the arrays that it takes.
        outputs: Names of what it gives: ``logits`` [N, classes], or ``start_logits`` and ``end_logits`` [N, T].
        types: Of the inputs that are no int64, such as int32.
    """

    suffixes: tuple[str, ...]
    packages: tuple[str, ...] = ()
    extra = ""

    def __init__(self, inputs: Mapping[str, Any] | Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)
        self.types = dict(inputs) if isinstance(inputs, Mapping) else {}
        # Whoever exported it may have named a single output anything.
        self.outputs = ("logits",) if len(outputs) == 1 else tuple(outputs)

    @classmethod
    @abstractmethod
    def open(cls, path: Path, threads: int) -> "Engine":
        """Opens a file to run on so many threads."""

    @abstractmethod
    def run(self, tokens: Tokens) -> list[NDArray[np.float32]]:
        """Runs one forward pass over the arrays named by ``inputs``; returns an array for each of ``outputs``."""

    def taken(self, tokens: Tokens) -> dict[str, NDArray[Any]]:
        """Selects the arrays that the file takes, and casts them to its types.

        Raises:
            InputError: it takes one that is not there.
        """
        for name in self.inputs:
            if name not in tokens:
                raise InputError(
                    f"the file takes {name}, and there is only {', '.join(tokens)}. Export the model again, with "
                    "inputs that its tokenizer gives."
                )
        return {name: tokens[name].astype(self.types.get(name, np.int64), copy=False) for name in self.inputs}

    @classmethod
    def check_installed(cls) -> None:
        """Checks that the libraries of the engine are installed.

        Raises:
            InputError: names what is not, and how to install it.
        """
        missing = [name for name in cls.packages if find_spec(name) is None]
        if missing:
            raise InputError(f"this backend needs {', '.join(missing)}. Install: pip install 'trainflat[{cls.extra}]'")
