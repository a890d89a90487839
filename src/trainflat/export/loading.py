"""Loads a model from a folder, in whichever form this package or transformers wrote it."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from trainflat.core.errors import InputError, UnknownName
from trainflat.export.unpacking import QUANT_METHOD, load_sparse
from trainflat.models.int8 import load_int8
from trainflat.models.rebuilt import load_dense
from trainflat.models.stored import quant_method
from trainflat.quantization import METHOD

READERS: dict[str, Callable[[Path], PreTrainedModel]] = {  # by quant_method of config.json
    METHOD: load_int8,
    QUANT_METHOD: load_sparse,
}


def load(folder: str | Path) -> PreTrainedModel:
    """The model in a folder, in evaluation mode: a stage of a run, any safetensors checkpoint, or an export.

    Nothing is unpickled and no code of the folder is run. Where the folder has a manifest, every file is compared with
    it; and whatever it has, no file outside of it is read, and a file that asks for far more memory than it is worth
    is refused.

    Raises:
        InputError: there is no such folder, no safetensors in it, or nobody here reads what it holds.
        DamagedFile: a file is not what was written, or no model fits it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no model folder {folder}. Give one with config.json and model.safetensors.")
    method = quant_method(folder)
    if method is None:
        return load_dense(folder)
    if method not in READERS:
        raise UnknownName("form of stored weights", method, READERS, where=str(folder))
    return READERS[method](folder)
