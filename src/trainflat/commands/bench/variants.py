"""Pairs models with backends, exporting folders where a backend needs a file."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainflat.commands.bench.remote import Remote
from trainflat.commands.export import export, weight_bytes
from trainflat.core.errors import DamagedFile, InputError, UnknownName
from trainflat.core.progress import Progress
from trainflat.engines import ENGINES
from trainflat.export import EXPORTERS
from trainflat.models.checks import check_folder
from trainflat.models.stored import CONFIG, quant_method, read_config_json
from trainflat.quantization import METHOD

# A backend is torch, or the format to which a folder is exported first: its engine, and the suffix of its file.
_ENGINES = {
    "torch": ("torch", ""),
    "int8": ("torch", ""),
    "torch-export": ("torch", ".pt2"),
    "onnx": ("onnx", ".onnx"),
    "onnx-int8": ("onnx", ".onnx"),
    "openvino": ("openvino", ".xml"),
    "openvino-int8": ("openvino", ".xml"),
}
_SUFFIXES = tuple(dict.fromkeys(suffix for engine in ENGINES.values() for suffix in engine.suffixes))
_PARTS = {".onnx": (".data",), ".xml": (".bin",)}  # files that may lie beside one, with the rest of its weights


@dataclass(frozen=True)
class Opened:
    """Holds one model by one backend.

    Attributes:
        model: What it is called.
        backend: As asked for.
        engine: Its name in ``ENGINES``.
        path: What the engine opens.
        home: The folder with the model's config and tokenizer.
    """

    model: str
    backend: str
    engine: str
    path: Path
    home: Path

    @property
    def name(self) -> str:
        """Returns the name for messages and rows of tables."""
        return f"{self.model}, {self.backend}"

    @property
    def bytes(self) -> int:
        """Returns the bytes of the weights on disk."""
        if self.path.is_dir():
            return weight_bytes(self.path)
        suffixes = (self.path.suffix, *_PARTS.get(self.path.suffix, ()))
        return sum(p.stat().st_size for p in self.path.parent.glob(f"{self.path.stem}.*") if p.suffix in suffixes)

    def start(self) -> Remote:
        """Starts the process that holds the model."""
        return Remote(self.name, self.engine, self.path)

    def number(self, key: str) -> int | None:
        """Returns a size from its config.json; None where there is no such file or no such number.

        Raises:
            DamagedFile: the file is not JSON, or holds an absurd number.
        """
        value = read_config_json(self.home).get(key) if (self.home / CONFIG).is_file() else None
        return value if isinstance(value, int) and value > 0 else None


def check_backends(names: Sequence[str]) -> None:
    """Checks that backends exist and that what they need is installed.

    Raises:
        InputError: names the first that cannot be used.
    """
    known = [name for name in _ENGINES if name == "torch" or name in EXPORTERS]
    for name in names:
        if name not in known:
            raise UnknownName("backend", name, known)
        ENGINES[_ENGINES[name][0]].check_installed()


@dataclass(frozen=True)
class Exports:
    """Exports folders to temporary files for backends.

    Attributes:
        place: The folder for them.
        task: Formats that look at text before they round take it from this task, where one is given.
        data: Folder with the task's files.
        seed: Of the run that held out rows.
        progress: Shows what happens.
    """

    place: Path
    task: Mapping[str, Any] | None
    data: Path | None
    seed: int
    progress: Progress

    def make(self, source: Path, name: str, to: str) -> Path:
        """Exports a folder, and returns the new one."""
        self.progress.say(f"exporting {name} to {to}")
        out = self.place / str(len(list(self.place.iterdir())))
        looks = EXPORTERS.build(to).samples > 0
        export(source, to, out, task=self.task if looks else None, data=self.data, seed=self.seed)
        return out


def open_all(models: Sequence[Path], backends: Sequence[str], exports: Exports) -> list[Opened]:
    """Opens every model by every backend that runs it, in this order.

    Raises:
        InputError: there is no such model, or no backend that runs it, or none for which it can be exported.
    """
    sources = [_source(path) for path in models]
    chosen = [_choose(source, backends) for source in sources]
    for path, mine in zip(models, chosen, strict=True):
        if not mine:
            raise InputError(f"{path} is not run by {', '.join(backends)}. Name another --backend.")
    opened: list[Opened] = []
    for name, source, mine in zip(labels(models), sources, chosen, strict=True):
        left = [backend for backend in backends if _ENGINES[backend][0] not in {_ENGINES[one][0] for one in mine}]
        if left:
            exports.progress.say(f"{name} is not run by {', '.join(left)}, and left out there")
        opened += _open_all(name, source, mine, exports)
    return opened


def _open_all(name: str, source: Path, backends: Sequence[str], exports: Exports) -> list[Opened]:
    """Opens one model by every backend whose export is kept; says which are not, and raises where none is."""
    opened: list[Opened] = []
    refused: InputError | None = None
    for backend in backends:
        try:
            opened.append(_open(name, source, backend, exports))
        except DamagedFile:
            raise
        except InputError as error:
            exports.progress.say(f"{name} is left out of {backend}: {error}")
            refused = error
    if refused is not None and not opened:
        raise refused
    return opened


def labels(models: Sequence[Path]) -> list[str]:
    """Shortens paths to distinct names: their ends, numbered where a path is given twice."""
    paths = [path.resolve() for path in models]
    names = [_tail(path, set(paths) - {path}) for path in paths]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: n + 1].count(name)})" for n, name in enumerate(names)
    ]


def _tail(path: Path, others: Collection[Path]) -> str:
    depths = range(1, len(path.parts) + 1)
    depth = next(n for n in depths if all(other.parts[-n:] != path.parts[-n:] for other in others))
    return Path(*path.parts[-depth:]).as_posix()


def _source(path: Path) -> Path:
    """Returns the model folder, or the file that an exported folder holds."""
    if not path.exists():
        raise InputError(f"there is no model {path}. Give a folder, or a file: {', '.join(_SUFFIXES)}.")
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix in _SUFFIXES]
        if len(files) == 1 and not any(path.glob("*.safetensors")):
            return files[0]
        check_folder(path)
    elif path.suffix not in _SUFFIXES:
        raise InputError(f"{path} is no model that can be timed. Give a folder, or a file: {', '.join(_SUFFIXES)}.")
    return path


def _choose(source: Path, backends: Sequence[str]) -> list[str]:
    """Returns the backends that run a model; a file is run by its engine alone, whose name is then the backend's."""
    if source.is_dir():
        exportable = quant_method(source) != METHOD  # int8 layers are torch's own
        return [backend for backend in backends if exportable or backend == "torch"]
    asked = list(dict.fromkeys(_ENGINES[backend][0] for backend in backends))
    fitting = [engine for engine in (*asked, *ENGINES) if source.suffix in ENGINES[engine].suffixes]
    if fitting[0] not in asked:  # the file tells who runs it
        ENGINES[fitting[0]].check_installed()
        return fitting[:1]
    return [engine for engine in asked if engine in fitting]


def _open(name: str, source: Path, backend: str, exports: Exports) -> Opened:
    engine, suffix = _ENGINES[backend]
    if source.is_file():
        return Opened(name, backend, engine, source, source.parent)
    if backend == "torch":
        return Opened(name, backend, engine, source, source)
    made = exports.make(source, name, backend)
    file = next(file for file in made.iterdir() if file.suffix == suffix) if suffix else made
    return Opened(name, backend, engine, file, source)
