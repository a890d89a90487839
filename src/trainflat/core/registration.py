"""Registers our quantizers with transformers, lazily, whichever of the two is imported first."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_HOST = "transformers.quantizers.auto"  # holds transformers' tables of quantizers
_READERS = {  # by quant_method in config.json: the module of its config and quantizer, and their names
    "trainflat-int8": ("trainflat.models.int8", "Int8Config", "Int8Quantizer"),
    "trainflat-sparse": ("trainflat.export.native", "SparseConfig", "SparseQuantizer"),
}


class _Lazy:
    """Stands for a quantizer class in transformers' tables; imports it at the first use."""

    def __init__(self, home: str, name: str) -> None:
        self.home, self.name = home, name

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._found()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found(), name)

    def _found(self) -> Any:
        try:
            return getattr(import_module(self.home), self.name)
        except ImportError as error:  # another version of transformers has moved its base classes
            from trainflat.core.errors import InputError

            raise InputError(f"transformers cannot read this folder ({error}). Use trainflat.load(folder).") from error


def register() -> None:
    """Registers our quantizers now, or when transformers' tables are imported.

    ``import trainflat`` must not import transformers, which takes seconds, and from_pretrained must read our folders in
    whichever order the two are imported.
    """
    host = sys.modules.get(_HOST)
    if hasattr(host, "AUTO_QUANTIZER_MAPPING"):
        _enter(host)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _enter(host: Any) -> None:
    for method, (home, config, quantizer) in _READERS.items():
        host.AUTO_QUANTIZATION_CONFIG_MAPPING[method] = _Lazy(home, config)
        host.AUTO_QUANTIZER_MAPPING[method] = _Lazy(home, quantizer)


class _Finder:  # not derived from importlib.abc, whose import takes as long as the rest of `import trainflat`
    """Hooks the import of one module of transformers, then removes itself."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != _HOST:
            return None
        sys.meta_path.remove(self)
        spec: Any = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Entering(spec.loader)
        return spec


class _Entering:
    """Loads a module by its own loader, then registers our quantizers in it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        _enter(module)

    def __getattr__(self, name: str) -> Any:  # get_source, get_resource_reader: tools ask loaders for these
        return getattr(self.inner, name)
