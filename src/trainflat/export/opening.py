"""Opens an exported file by its name."""

from pathlib import Path

from trainflat.core.errors import DamagedFile, InputError, one_line
from trainflat.core.files import is_sealed, verify
from trainflat.export.base import Exporter
from trainflat.export.onnx import Onnx
from trainflat.export.openvino import OpenVino
from trainflat.export.runner import Runner
from trainflat.export.torch_export import TorchExport
from trainflat.models.stored import MOVE

_READERS: tuple[type[Exporter], ...] = (Onnx, OpenVino, TorchExport)  # one per kind of file


def open_export(folder: str | Path, threads: int | None = None) -> Runner:
    """An export with a file of its own kind, ready to run: ONNX, OpenVINO or a program of torch.

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
    reader = next((reader for reader in _READERS if (folder / reader.file).is_file()), None)
    if reader is None:
        files = ", ".join(reader.file for reader in _READERS)
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
