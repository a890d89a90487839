"""Defines what an export format does: it writes a folder, and opens it again for the check."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import InputError
from trainflat.core.files import seal, workplace, writing
from trainflat.engines.base import require_packages
from trainflat.models import output_names, read_tokenizer

# Of tokenizers that are no Python class of transformers, which would name its own.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Source:
    """Holds a model to be exported, in evaluation mode, with the tokenizer and the folder that it came with.

    Attributes:
        folder: Where it came from.
        model: In float32, unless the format keeps what the folder has.
        tokenizer: That fits it.
        texts: Real text of the kind that the model is for, one row of tokens [1, T] each, for formats that look at
            what runs through the model before they round it.
    """

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    texts: Sequence[Mapping[str, Tensor]] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names the inputs that the tokenizer gives and the model takes."""
        known = ("input_ids", "attention_mask", "token_type_ids")
        return tuple(name for name in known if name in self.tokenizer.model_input_names)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names the model's outputs."""
        return output_names(self.model)


class Exporter(ABC):
    """Writes and opens one format; its constructor takes the format's options.

    Attributes:
        file: That holds the model; no other format's reader is tried on a folder that has it.
        extra: Of ``pip install trainflat[...]``, where the format needs one.
        packages: Modules of that extra.
        keeps_type: Half precision stays what it is; else the source's model is float32 before ``write``.
        samples: How many of the source's texts ``write`` looks at.
    """

    file: str
    extra = ""
    packages: tuple[str, ...] = ()
    keeps_type = False
    samples: int = 0

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """Says by how much a logit may move, as a share of the largest; infinite where values are rounded."""

    @abstractmethod
    def write(self, source: Source, folder: Path) -> None:
        """Writes the model into an empty folder; config and tokenizer are there already.

        Raises:
            InputError: the format cannot hold this model.
        """

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, threads: int | None = None) -> nn.Module:
        """Opens what was written, as it will be run: a module that takes a batch by name and gives logits by name.

        Args:
            folder: That ``write`` filled.
            threads: Of a library that has its own; None is as many as torch has. What torch runs, runs on torch's.
        """

    @classmethod
    def check_installed(cls) -> None:
        """Raises InputError for packages of the format that are not installed."""
        require_packages("export", cls.packages, cls.extra)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``out`` that is sealed and takes its name when the block ends; gone if it raises.

    Raises:
        InputError: ``out`` exists and is not an empty folder, the disk is full, or the place cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already. Choose another --out, or move it away.")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with workplace(out.parent) as place:
            temporary = place / out.resolve().name
            temporary.mkdir()
            yield temporary
            mode = 0o666 & temporary.stat().st_mode  # as the umask gives it; safetensors leaves 0600
            for path in temporary.rglob("*"):
                if path.is_file():
                    path.chmod(mode)
            seal(temporary)
            temporary.replace(out)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copies the tokenizer's files, byte for byte; none where there are none."""
    try:
        tokenizer = read_tokenizer(source)
    except Exception:  # a model without a tokenizer is still a model; with a broken one, ours stays as broken
        names = set(_TOKENIZER_FILES)
    else:
        names = {*_TOKENIZER_FILES, *tokenizer.vocab_files_names.values()}
    for name in sorted(names):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
