"""Models in folders that anybody may have written: nothing is unpickled, and nothing is believed before it is checked."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from trainflat.errors import DamagedFile, InputError
from trainflat.files import is_sealed, verify
from trainflat.models.checks import check_folder
from trainflat.models.quiet import quiet_loading

CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
_LARGEST_NUMBER = 2**20  # in a config: a vocabulary or a number of positions, not yet a denial of memory
_LOOPS = re.compile("layer|group|block|depth")  # numbers of modules, which are made one by one
_MEMORY = 2**30  # bytes that any file may ask for ...
_SWELL = 64  # ... and what it may ask for beyond, per byte of its own
_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F16": 2, "BF16": 2, "I16": 2, "F32": 4, "I32": 4, "F64": 8, "I64": 8}
MOVE = "Copy it again from where it was made, or export it again."


@dataclass(frozen=True)
class Stored:
    """Name, type (as safetensors calls it) and shape of a tensor that still lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    path: Path

    @property
    def bytes(self) -> int:
        """In memory."""
        return prod(self.shape) * _SIZES[self.dtype]


def check_sealed(folder: Path) -> None:
    """Weights and config are there, and where the folder has a manifest, all of its files are what was written.

    Raises:
        InputError: something is missing, or the weights are a pickle.
        DamagedFile: a file differs from the manifest.
    """
    check_folder(folder)
    if is_sealed(folder):
        verify(folder, again=f"the folder {folder} and export it again, or copy it again,")


def read_config_json(folder: Path) -> dict[str, Any]:
    """``config.json`` as it stands, with numbers that a model can have.

    Raises:
        DamagedFile: it is not JSON, no mapping, or holds an absurd number.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf8"))
        absurd = _absurd(config)
    except (ValueError, OSError, RecursionError) as error:
        raise DamagedFile(f"{path} cannot be read ({_line(error)}). {MOVE}") from error
    if not isinstance(config, dict):
        raise DamagedFile(f"{path} holds no mapping. {MOVE}")
    if absurd is not None:
        raise DamagedFile(f"{path} holds the number {absurd}, which no encoder has. {MOVE}")
    return config


def _absurd(value: Any) -> int | None:
    """The first whole number in a JSON value that is too large to size anything with."""
    if isinstance(value, int):
        return value if abs(value) > _LARGEST_NUMBER else None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for found in map(_absurd, inner) if found is not None), None)


def quant_method(folder: Path) -> str | None:
    """How the weights are stored, by the name that config.json has for it; None where every entry is.

    Raises:
        InputError: there is no config.json.
        DamagedFile: it is not that of a model.
    """
    check_folder(folder)
    how = read_config_json(folder).get("quantization_config")
    if how is None:
        return None
    method = how.get("quant_method") if isinstance(how, dict) else None
    if not isinstance(method, str):
        raise DamagedFile(f"{folder / CONFIG} does not tell how the weights are stored. {MOVE}")
    return method


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """What the folder's safetensors files hold, by name; one file, or the shards that an index beside them names.

    Raises:
        DamagedFile: a file is truncated or not safetensors, or the index names a file elsewhere.
    """
    found: dict[str, Stored] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    found[name] = Stored(part.get_dtype(), tuple(part.get_shape()), path)
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise DamagedFile(f"{path} is not a whole safetensors file ({_line(error)}). {MOVE}") from error
    strange = next((name for name, one in found.items() if one.dtype not in _SIZES), None)
    if strange is not None:
        raise DamagedFile(
            f"{found[strange].path} holds {strange!r} as {found[strange].dtype}, which no model has. {MOVE}"
        )
    return found


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file() or not (folder / SHARDS).is_file():
        return [folder / WEIGHTS]
    try:
        names = set(json.loads((folder / SHARDS).read_text(encoding="utf8"))["weight_map"].values())
        ours = all(Path(name).name == name and name.endswith(".safetensors") for name in names)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{folder / SHARDS} cannot be read ({_line(error)}). {MOVE}") from error
    if not ours:
        raise DamagedFile(f"{folder / SHARDS} names files outside of its folder. {MOVE}")
    return [folder / name for name in sorted(names)]


def read_tensors(stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    """The tensors themselves, as they lie in their files.

    Raises:
        DamagedFile: one cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for path in sorted({one.path for one in stored.values()}):
        try:
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(name) for name, one in stored.items() if one.path == path}
        except (SafetensorError, OSError, ValueError) as error:
            raise DamagedFile(f"{path} cannot be read ({_line(error)}). {MOVE}") from error
    return tensors


def check_memory(folder: Path, wanted: int) -> None:
    """A model takes no more memory than its files make likely.

    Args:
        folder: That holds the model.
        wanted: Bytes.

    Raises:
        DamagedFile: it is more than 64 times the files and a gigabyte.
    """
    size = sum(path.stat().st_size for path in _files(folder) if path.is_file())
    if wanted > _MEMORY + _SWELL * size:
        raise DamagedFile(f"{folder} asks for {wanted:.1e} bytes of memory with {size} bytes of weights. {MOVE}")


def read_config(folder: Path, tensors: int) -> PreTrainedConfig:
    """The config as transformers reads it, without what tells how the weights are stored.

    Args:
        folder: That holds the model.
        tensors: How many its files hold: there cannot be more layers than these.

    Raises:
        DamagedFile: it cannot be that of a model.
    """
    numbers = read_config_json(folder)
    for key, value in numbers.items():
        if isinstance(value, int) and _LOOPS.search(key) and value > max(tensors, 64):
            raise DamagedFile(f"{folder / CONFIG} tells of {value} {key} where there are {tensors} tensors. {MOVE}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a foreign file may be wrong in any way
        raise DamagedFile(f"{folder / CONFIG} is not that of a model ({_line(error)}). {MOVE}") from error
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def build_model(folder: Path, config: PreTrainedConfig, shapes: Mapping[str, tuple[int, ...]]) -> "Skeleton":
    """The model that a config describes, on torch's meta device, checked against the shapes that the files tell.

    Raises:
        DamagedFile: the config describes no model of transformers, or one of other shapes.
    """
    kind = _model_class(folder, config)
    try:
        with torch.device("meta"), quiet_loading():
            empty = kind(config)
            expected = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    except Exception as error:  # whatever a config may say that no model can be
        raise DamagedFile(f"{folder / CONFIG} is not that of a model ({_line(error)}). {MOVE}") from error
    check_shapes(folder, expected, shapes)
    check_memory(folder, 4 * sum(map(prod, expected.values())))
    return Skeleton(folder, kind, config)


def check_shapes(folder: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Tensors that model and files both name have one shape.

    Raises:
        DamagedFile: names the first that has not.
    """
    for name, shape in found.items():
        if expected.get(name, shape) != shape:
            wanted = list(expected[name])
            raise DamagedFile(f"{folder}: {name} has the shape {list(shape)}, its config says {wanted}. {MOVE}")


def _model_class(folder: Path, config: PreTrainedConfig) -> type[PreTrainedModel]:
    names = getattr(config, "architectures", None)
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel) and kind.config_class is type(config)):
        raise DamagedFile(f"{folder / CONFIG} names the architecture {names!r}, which transformers has not. {MOVE}")
    return kind


@dataclass(frozen=True)
class Skeleton:
    """A model that is known to fit its files, before it has weights."""

    folder: Path
    kind: type[PreTrainedModel]
    config: PreTrainedConfig

    def fill(self, tensors: Mapping[str, Tensor]) -> PreTrainedModel:
        """The model with its weights, in the type that its config says, without dropout.

        Raises:
            DamagedFile: a weight is missing or has another shape.
        """
        try:
            with quiet_loading():
                model, info = self.kind.from_pretrained(
                    None, config=self.config, state_dict=dict(tensors), dtype="auto", output_loading_info=True
                )
        except Exception as error:  # as above
            raise DamagedFile(f"{self.folder} cannot be loaded ({_line(error)}). {MOVE}") from error
        misfits = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"], *info["error_msgs"]]))
        if misfits:
            raise DamagedFile(f"{self.folder} has no weights that fit {misfits[0]}. {MOVE}")
        found: PreTrainedModel = model
        return found


def _line(error: BaseException) -> str:
    return shorten(" ".join(str(error).split()), 150, placeholder=" ...").rstrip(".: ") or type(error).__name__


def load_dense(folder: Path) -> PreTrainedModel:
    """A model whose files hold every entry of its weights, as `save_pretrained` writes it.

    Raises:
        InputError: a file is missing, the weights are a pickle, or they are stored in a form of their own.
        DamagedFile: a file is not what was written, or no model fits it.
    """
    check_sealed(folder)
    stored = stored_tensors(folder)
    config = read_config(folder, len(stored))
    if quant_method(folder) is not None:
        raise InputError(f"{folder} holds weights in a form of its own. Load it with trainflat.load(folder).")
    shapes = {name: one.shape for name, one in stored.items()}
    check_memory(folder, sum(one.bytes for one in stored.values()))
    return build_model(folder, config, shapes).fill(read_tensors(stored))
