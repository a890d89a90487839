"""Folders that appear when they are complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoTokenizer

from trainflat.core.errors import InputError
from trainflat.core.files import seal, workplace, writing

# Of tokenizers that are no Python class of transformers, which would name its own.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


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
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    except Exception:  # a model without a tokenizer is still a model; with a broken one, ours stays as broken
        names = set(_TOKENIZER_FILES)
    else:
        names = {*_TOKENIZER_FILES, *tokenizer.vocab_files_names.values()}
    for name in sorted(names):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
