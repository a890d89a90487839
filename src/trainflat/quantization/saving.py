"""Files of weights in a form of this package's own, under a name that transformers does not look for.

Without this package, transformers would take tensors that it does not know for missing weights, fill these at random,
and answer.
"""

from pathlib import Path
from typing import Any

from torch import nn

from trainflat.core.errors import InputError
from trainflat.core.files import workplace

OWN_WEIGHTS = "trainflat.safetensors"
_OTHERS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")  # that transformers may read


def save_as_own(model: nn.Module) -> None:
    """Makes ``save_pretrained`` of a transformers model, and of models within it, write ``trainflat.safetensors``."""
    for module in model.modules():
        if hasattr(type(module), "save_pretrained"):
            vars(module)["save_pretrained"] = _Saving(module)


class _Saving:
    """``save_pretrained`` of a model with int8 layers."""

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
