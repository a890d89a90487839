"""Loads a model from a folder in any form that this package writes, and opens exported files."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from trainflat.core.errors import DamagedFile, InputError, UnknownName, one_line
from trainflat.core.files import is_sealed, verify
from trainflat.export.base import Exporter
from trainflat.export.onnx import Onnx
from trainflat.export.openvino import OpenVino
from trainflat.export.runner import Runner
from trainflat.export.torch_export import TorchExport
from trainflat.export.unpacking import QUANT_METHOD, load_sparse
from trainflat.models.int8 import load_int8
from trainflat.models.safe_load import load_dense
from trainflat.models.stored import MOVE, quant_method
from trainflat.quantization import METHOD

READERS: dict[str, Callable[[Path], PreTrainedModel]] = {  # by quant_method of config.json
    METHOD: load_int8,
    QUANT_METHOD: load_sparse,
}
_OPENERS: tuple[type[Exporter], ...] = (Onnx, OpenVino, TorchExport)  # one per kind of file


def load(folder: str | Path) -> PreTrainedModel:
    """Loads the model in a folder, in evaluation mode: a stage of a run, any safetensors checkpoint, or an export.

    Nothing is unpickled and no code of the folder is run. Where the folder has a manifest, every file is compared with
    it; and whatever it has, no file outside of it is read, and a file that asks for far more memory than it is worth
    is refused.

    Raises:
        InputError: there is no such folder, no safetensors in it, or their form is unknown.
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


def open_export(folder: str | Path, threads: int | None = None) -> Runner:
    """Opens an export with a file of its own kind, ready to run: ONNX, OpenVINO or a program of torch.

    Where the folder has a manifest, every file is compared with it. A program of torch may run any code of its maker's
    when it is read: open none from people whom you do not trust.

    Args:
        folder: That ``trainflat export`` wrote.
        threads: Of onnxruntime or OpenVINO; None is as many as torch has.

    Raises:
        InputError: no such file is in the folder, or a package is missing.
        DamagedFile: a file is not what was written, or cannot be read.
    """
    folder = Path(folder).expanduser()
    reader = next((reader for reader in _OPENERS if (folder / reader.file).is_file()), None)
    if reader is None:
        files = ", ".join(reader.file for reader in _OPENERS)
        raise InputError(f"{folder} holds none of {files}. Make one with `trainflat export`.")
    reader.check_installed()
    if is_sealed(folder):
        verify(folder)
    try:
        opened = reader.open(folder, threads)
    except Exception as error:  # of any kind, for a foreign file may be wrong in any way
        raise DamagedFile(f"{folder / reader.file} cannot be opened ({one_line(error)}). {MOVE}") from error
    assert isinstance(opened, Runner)
    return opened
