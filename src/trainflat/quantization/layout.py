"""Where the int8 layers of a model are: in a copy, in a config.json, and in a file under this package's own name."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Self, TypeVar, get_args

from torch import nn

from trainflat.core.errors import InputError
from trainflat.core.files import workplace
from trainflat.quantization.modules import Activations, Inputs, Int8Embedding, Int8Linear, Int8Module, empty_int8

METHOD = "trainflat-int8"
# Not a name that transformers looks for: without this package, it would take tensors that it does not know for missing
# weights, fill these at random, and answer.
OWN_WEIGHTS = "trainflat.safetensors"
_OTHERS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")  # that transformers may read
_AGAIN = "Quantize the model and save it again."

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Layout:
    """Names the int8 modules of a model, so that it can be built again before its tensors are loaded."""

    activations: Inputs
    linears: tuple[str, ...]
    embeddings: tuple[str, ...] = ()

    def as_config(self) -> dict[str, Any]:
        """Writes the layout as ``quantization_config`` of a transformers model's config.json has it."""
        names = {k: list(v) if k != "activations" else v for k, v in asdict(self).items()}
        return {"quant_method": METHOD, "weights": OWN_WEIGHTS, **names}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads what ``as_config`` wrote. Raises InputError if it is something else."""
        names = {key: config.get(key) for key in ("linears", "embeddings")}
        for key, value in names.items():
            if not (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)):
                got = shorten(repr(value), 60)
                raise InputError(f"quantization_config.{key} must be a list of module names, got {got}. {_AGAIN}")
        check_activations(config.get("activations"), Inputs)
        return cls(config["activations"], tuple(names["linears"] or ()), tuple(names["embeddings"] or ()))

    @classmethod
    def of(cls, made: Mapping[str, Int8Module], activations: Inputs) -> Self:
        """Lists the modules that were put into a model."""
        linears, tables = ([n for n, m in made.items() if isinstance(m, kind)] for kind in (Int8Linear, Int8Embedding))
        return cls(activations, tuple(linears), tuple(tables))


def int8_copy(model: Model, made: Mapping[str, Int8Module], activations: Inputs) -> Model:
    """Copies a model, in evaluation mode, with int8 modules in place of the float ones of these names.

    A transformers model's configuration says which of its layers are int8, and ``save_pretrained`` writes them as such.
    """
    # The copy finds these in its memo, wherever the model refers to the module, and never copies the float weights.
    result = copy.deepcopy(model, {id(model.get_submodule(name)): module for name, module in made.items()}).eval()
    config: Any = getattr(result, "config", None)
    if hasattr(config, "to_dict"):  # a transformers model's
        config.quantization_config = Layout.of(made, activations).as_config()
        save_as_own(result)
    return result


def prepare(model: nn.Module, layout: Layout, prefix: str = "") -> None:
    """Puts empty int8 modules in the places that ``layout`` names, ready to be loaded into.

    Args:
        model: A model of the same architecture, also on the meta device; changed in place.
        layout: Of the model that was saved.
        prefix: Of the encoder in a model with a head. An encoder may be loaded from a file with a head, and the other
            way round; places that only the other one has are skipped.

    Raises:
        InputError: a place holds no such layer, or none of the places exists.
    """
    wanted = dict.fromkeys(layout.linears, nn.Linear) | dict.fromkeys(layout.embeddings, nn.Embedding)
    places = dict(model.named_modules(remove_duplicate=False))
    empty: dict[int, Int8Module] = {}
    for name, kind in wanted.items():
        place = next((p for p in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")) if p in places), None)
        if place is None:
            continue
        if type(places[place]) is not kind:
            found = type(places[place]).__name__
            raise InputError(f"quantization_config names {name}, which is a {found}, no {kind.__name__}. {_AGAIN}")
        empty[id(places[place])] = empty_int8(places[place], layout.activations)
    if not empty:
        raise InputError(f"quantization_config names no layer of this {type(model).__name__}. {_AGAIN}")
    for place, module in places.items():
        if id(module) in empty:
            model.set_submodule(place, empty[id(module)])


def check_loaded(model: nn.Module) -> None:
    """Checks every int8 module after its tensors were loaded.

    Raises:
        DamagedFile: names the first tensor that cannot be right.
    """
    for name, module in model.named_modules():
        if isinstance(module, Int8Module):
            module.check(name)


def check_activations(activations: object, among: Any = Activations) -> None:
    known = get_args(among)
    if activations not in known:
        ways = f"{', '.join(known[:-1])} or {known[-1]}"
        raise InputError(f"activations is how inputs are rounded, {ways}, got {activations!r}.")


def save_as_own(model: nn.Module) -> None:
    """Makes ``save_pretrained`` of a transformers model, and of models within it, write ``trainflat.safetensors``."""
    for module in model.modules():
        if hasattr(type(module), "save_pretrained"):
            vars(module)["save_pretrained"] = _Saving(module)


class _Saving:
    """Stands for ``save_pretrained`` of a model with int8 layers."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, save_directory: str | Path, *, push_to_hub: bool = False, **options: Any) -> None:
        """Saves as transformers does, in one file of another name.

        Raises:
            InputError: the folder holds weights of another model, or the hub is to be given files on the way.
        """
        folder = Path(save_directory)
        others = {path.name for pattern in _OTHERS for path in folder.glob(pattern)} - {OWN_WEIGHTS}
        if others:
            raise InputError(
                f"{folder} holds {min(others)}, which transformers would load in place of the int8 model. "
                "Choose another folder."
            )
        if push_to_hub:
            raise InputError("push_to_hub=True is not for int8 models. Leave it out, then call push_to_hub(name).")
        folder.mkdir(parents=True, exist_ok=True)
        with workplace(folder) as place:
            type(self.model).save_pretrained(self.model, place, **options | {"max_shard_size": "1000GB"})
            for weights in place.glob("*.safetensors"):
                weights.replace(place / OWN_WEIGHTS)
            for path in place.iterdir():
                path.replace(folder / path.name)
