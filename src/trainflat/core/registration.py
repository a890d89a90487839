"""Registers our quantizers and model classes with transformers, lazily, whichever of the two is imported first."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_QUANTIZERS = "transformers.quantizers.auto"  # transformers' tables of quantizers
_CONFIGS = "transformers.models.auto.configuration_auto"  # and of config classes
_SHRUNK = {  # by model_type in config.json without our prefix: transformers' config class; as in anatomy.FAMILIES
    "albert": "AlbertConfig",
    "bert": "BertConfig",
    "camembert": "CamembertConfig",
    "deberta-v2": "DebertaV2Config",
    "distilbert": "DistilBertConfig",
    "electra": "ElectraConfig",
    "modernbert": "ModernBertConfig",
    "mpnet": "MPNetConfig",
    "roberta": "RobertaConfig",
    "vit": "ViTConfig",
    "xlm-roberta": "XLMRobertaConfig",
}
_READERS = {  # by quant_method in config.json: the module of its config and quantizer, and their names
    "trainflat-int8": ("trainflat.models.int8", "Int8Config", "Int8Quantizer"),
    "trainflat-sparse": ("trainflat.export.native", "SparseConfig", "SparseQuantizer"),
}


class _Lazy:
    """Stands for a class in transformers' tables; imports it at the first use."""

    def __init__(self, home: str, name: str) -> None:
        self.home, self.name = home, name
        self.__name__ = name  # transformers compares names of config classes

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
    """Registers our classes now, or when transformers' tables are imported.

    ``import trainflat`` must not import transformers, which takes seconds, and from_pretrained must read our folders in
    whichever order the two are imported.
    """
    for host, (table, enter) in _HOSTS.items():
        module = sys.modules.get(host)
        if hasattr(module, table):
            enter(module)
        elif not any(isinstance(finder, _Finder) and finder.host == host for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder(host))


def _enter_quantizers(host: Any) -> None:
    for method, (home, config, quantizer) in _READERS.items():
        host.AUTO_QUANTIZATION_CONFIG_MAPPING[method] = _Lazy(home, config)
        host.AUTO_QUANTIZER_MAPPING[method] = _Lazy(home, quantizer)


def _enter_configs(host: Any) -> None:
    for kind, config in _SHRUNK.items():
        lazy = _Lazy("trainflat.models.shrunk", f"Shrunk{config}")
        host.CONFIG_MAPPING.register(f"trainflat-{kind}", lazy, exist_ok=True)


_HOSTS: dict[str, tuple[str, Callable[[Any], None]]] = {  # by module: what it must have, and what enters our classes
    _QUANTIZERS: ("AUTO_QUANTIZER_MAPPING", _enter_quantizers),
    _CONFIGS: ("CONFIG_MAPPING", _enter_configs),
}


class _Finder:  # not derived from importlib.abc, whose import takes as long as the rest of `import trainflat`
    """Hooks the import of one module of transformers, then removes itself."""

    def __init__(self, host: str) -> None:
        self.host = host

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != self.host:
            return None
        sys.meta_path.remove(self)
        spec: Any = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Entering(spec.loader, _HOSTS[self.host][1])
        return spec


class _Entering:
    """Loads a module by its own loader, then registers our classes in it."""

    def __init__(self, inner: Any, enter: Callable[[Any], None]) -> None:
        self.inner, self.enter = inner, enter

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        self.enter(module)

    def __getattr__(self, name: str) -> Any:  # get_source, get_resource_reader: tools ask loaders for these
        return getattr(self.inner, name)
