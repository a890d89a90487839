"""Reads model files that anybody may have written: unpickles nothing, believes nothing before it is checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainflat.core.errors import DamagedFile, one_line
from trainflat.core.files import is_sealed, verify
from trainflat.core.formatting import plural
from trainflat.core.untrusted import parse_json, read_text
from trainflat.models.checks import check_folder
from trainflat.quantization.layout import OWN_WEIGHTS

OWN_FORMS = ("trainflat-int8", "trainflat-sparse")  # quant_method of what this package writes
CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
_LARGEST_NUMBER = 2**20  # in a config: a vocabulary or a number of positions, not yet a denial of memory
_MEMORY = 2**30  # bytes that any file may ask for ...
_SWELL = 64  # ... and what it may ask for beyond, per byte of its own
_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F16": 2, "BF16": 2, "I16": 2, "F32": 4, "I32": 4, "F64": 8, "I64": 8}
MOVE = "Copy it again from where it was made, or export it again."


@dataclass(frozen=True)
class Stored:
    """Describes a tensor that still lies in its file: type (as safetensors calls it) and shape."""

    dtype: str
    shape: tuple[int, ...]
    path: Path

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return prod(self.shape) * _SIZES[self.dtype]


def check_sealed(folder: Path) -> None:
    """Checks that weights and config are there, and every file against the manifest, where the folder has one.

    Raises:
        InputError: something is missing, or the weights are a pickle.
        DamagedFile: a file differs from the manifest.
    """
    check_inside(folder)
    check_folder(folder)
    if is_sealed(folder):
        verify(folder)


def check_inside(folder: Path) -> None:
    """Checks that a folder holds files and folders only, and no link to a file elsewhere, which nobody may see.

    In the hub's cache files are links into a folder of that cache.

    Raises:
        DamagedFile: names the first that is not.
    """
    place = folder.resolve()
    homes = [place, *([place.parents[1] / "blobs"] if place.parent.name == "snapshots" else [])]
    for path in sorted(folder.iterdir()):
        real = path.resolve()
        if real.is_dir():
            continue
        if not real.is_file():  # a pipe would keep its reader waiting
            raise DamagedFile(f"{path} is no file. {MOVE}")
        if not any(real.is_relative_to(home) for home in homes):
            raise DamagedFile(f"{path} is a link out of its folder. Put a copy of {real.name} in its place.")


def read_config_json(folder: Path) -> dict[str, Any]:
    """Reads ``config.json``; refuses numbers that no model can have.

    Raises:
        DamagedFile: it is not JSON, no mapping, or holds an absurd number.
    """
    path = folder / CONFIG
    try:
        config = parse_json(read_text(path), object_pairs_hook=_once)
        absurd = _absurd(config)
    except (ValueError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read ({one_line(error)}). {MOVE}") from error
    if not isinstance(config, dict):
        raise DamagedFile(f"{path} holds no mapping. {MOVE}")
    if absurd is not None:
        raise DamagedFile(f"{path} holds the number {absurd}, which no encoder has. {MOVE}")
    return config


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a mapping with a key twice: of two values, each library might believe another."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _absurd(value: Any) -> int | None:
    """Finds the first whole number in a JSON value that is too large to size anything with."""
    if isinstance(value, int):
        return value if abs(value) > _LARGEST_NUMBER else None
    if isinstance(value, dict):
        value = [one for key, one in value.items() if "theta" not in key]  # a base of rotary positions sizes nothing
    inner = value if isinstance(value, list) else ()
    return next((found for found in map(_absurd, inner) if found is not None), None)


def quant_method(folder: Path) -> str | None:
    """Reads from config.json how the weights are stored; None where every entry is.

    Raises:
        InputError: there is no config.json.
        DamagedFile: it does not say so.
    """
    check_folder(folder)
    how = read_config_json(folder).get("quantization_config")
    if how is None:
        return None
    method = how.get("quant_method") if isinstance(how, dict) else None
    if not isinstance(method, str):
        raise DamagedFile(f"{folder / CONFIG} does not say how the weights are stored. {MOVE}")
    return method


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Lists the tensors in a folder's safetensors: one file, or the shards that an index beside them names.

    Raises:
        DamagedFile: a file is truncated or not safetensors, or the index names a file elsewhere.
    """
    found: dict[str, Stored] = {}
    for path in _files(folder):
        if not path.is_file():  # nor a pipe, which would keep its reader waiting
            raise DamagedFile(f"{path} is no file. {MOVE}")
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    found[name] = Stored(part.get_dtype(), tuple(part.get_shape()), path)
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise DamagedFile(f"{path} is not a whole safetensors file ({one_line(error)}). {MOVE}") from error
    strange = next((name for name, one in found.items() if one.dtype not in _SIZES), None)
    if strange is not None:
        raise DamagedFile(
            f"{found[strange].path} holds {strange!r} as {found[strange].dtype}, which no model has. {MOVE}"
        )
    return found


def _files(folder: Path) -> list[Path]:
    how = read_config_json(folder).get("quantization_config")
    if isinstance(how, dict) and how.get("weights") == OWN_WEIGHTS:
        return [folder / OWN_WEIGHTS]
    if (folder / WEIGHTS).is_file() or not (folder / SHARDS).is_file():
        return [folder / WEIGHTS]
    try:
        names = set(parse_json(read_text(folder / SHARDS))["weight_map"].values())
        ours = all(Path(name).name == name and name.endswith(".safetensors") for name in names)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"{folder / SHARDS} cannot be read ({one_line(error)}). {MOVE}") from error
    if not ours:
        raise DamagedFile(f"{folder / SHARDS} names files outside of its folder. {MOVE}")
    return [folder / name for name in sorted(names)]


def read_tensors(stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Reads the tensors as they lie in their files.

    Raises:
        DamagedFile: one cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for path in sorted({one.path for one in stored.values()}):
        try:
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(name) for name, one in stored.items() if one.path == path}
        except (SafetensorError, OSError, ValueError) as error:
            raise DamagedFile(f"{path} cannot be read ({one_line(error)}). {MOVE}") from error
    return tensors


def check_memory(folder: Path, wanted: int) -> None:
    """Refuses a model that takes far more memory than its files make likely.

    Args:
        folder: That holds the model.
        wanted: Bytes.

    Raises:
        DamagedFile: it is more than 64 times the files and a gigabyte.
    """
    size = sum(path.stat().st_size for path in _files(folder) if path.is_file())
    if wanted > _MEMORY + _SWELL * size:
        raise DamagedFile(
            f"{folder} asks for {wanted:.1e} bytes of memory with {plural(size, 'byte')} of weights. {MOVE}"
        )
