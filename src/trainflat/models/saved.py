"""Loads any model that was saved whole, dense, pruned or int8, as the class that it was saved from."""

from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedModel

from trainflat.errors import DamagedFile, InputError
from trainflat.files import MOVE
from trainflat.models.checks import check_folder
from trainflat.models.loading import failures_in_one_line
from trainflat.models.quiet import quiet_loading


def load(folder: str | Path) -> PreTrainedModel:
    """A model from the folder that ``save_pretrained`` or a run left: dense, pruned or int8.

    In evaluation mode, float32 where it is not int8. The file must hold every tensor of the model and no other. No code
    that comes with the model is run, and nothing is unpickled.

    Args:
        folder: With ``config.json`` and ``*.safetensors``; a run keeps one per stage, ``RUN/stages/dense``.

    Raises:
        InputError: it is no such folder, or transformers does not know the architecture.
        DamagedFile: a file is truncated, or its tensors are not those of the model.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no model folder {folder}. Give one with config.json and model.safetensors.")
    check_folder(folder)
    for path in folder.glob("*.safetensors"):
        _check_is_whole(path)
    with failures_in_one_line(str(folder)), quiet_loading():
        model, info = _architecture(folder).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that a misfit comes back as data
        )
    for state, keys in (
        ("lacks", info["missing_keys"]),
        ("has an unknown", info["unexpected_keys"]),
        ("has another shape of", [key for key, *_ in info["mismatched_keys"]]),
    ):
        if keys:
            raise DamagedFile(f"the model in {folder} {state} {min(keys)}. {MOVE}")
    return model.eval()


def _check_is_whole(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path} is not a whole safetensors file ({error}). {MOVE}") from error


def _architecture(folder: Path) -> type[PreTrainedModel]:
    names = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).architectures or []
    found = getattr(transformers, names[0], None) if names else None
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise InputError(
            f"config.json in {folder} names {names[0] if names else 'no architecture'}, which is no class of "
            "transformers. Save the model again: model.save_pretrained(folder)."
        )
    return found
