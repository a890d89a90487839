"""What a format must offer: a folder that others load, and the way back, by which it is checked."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.errors import InputError


@dataclass(frozen=True)
class Source:
    """A model to be exported, in evaluation mode, with the tokenizer and the folder that it came with."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what the tokenizer gives and the model takes."""
        known = ("input_ids", "attention_mask", "token_type_ids")
        return tuple(name for name in known if name in self.tokenizer.model_input_names)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the model answers with."""
        spans = type(self.model).__name__.endswith("ForQuestionAnswering")
        return ("start_logits", "end_logits") if spans else ("logits",)


class Exporter(ABC):
    """One format; its constructor takes the format's options.

    Attributes:
        extra: Of ``pip install trainflat[...]``, where the format needs one.
        packages: Modules of that extra.
    """

    extra = ""
    packages: tuple[str, ...] = ()

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """By how much a logit may move, as a share of the largest; infinite where values are rounded."""

    @abstractmethod
    def write(self, source: Source, folder: Path) -> None:
        """Writes the model into an empty folder; config and tokenizer are there already.

        Raises:
            InputError: the format cannot hold this model.
        """

    @abstractmethod
    def read(self, source: Source, folder: Path) -> nn.Module:
        """What was written, as it will be run: a module that takes a batch by name and gives logits by name."""

    def check_installed(self) -> None:
        """Everything that the format needs is there.

        Raises:
            InputError: names what is not, and how to install it.
        """
        missing = missing_packages(self.packages)
        if missing:
            raise InputError(f"this export needs {', '.join(missing)}. Install: pip install 'trainflat[{self.extra}]'")


def missing_packages(names: Iterable[str]) -> list[str]:
    """Those of the packages that are not installed."""
    return [name for name in names if find_spec(name) is None]
