"""Loads models from folders that anybody may have written: checks shapes on torch's meta device before any weight."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import DamagedFile, InputError, one_line
from trainflat.models.quiet import quiet_loading
from trainflat.models.shrunk import model_class
from trainflat.models.stored import (
    CONFIG,
    MOVE,
    check_inside,
    check_memory,
    check_sealed,
    quant_method,
    read_config_json,
    read_tensors,
    stored_tensors,
)

_LEFT_OUT = {"pooler", "position_ids", "token_type_ids", "inv_freq", "cls", "lm_head", "classifier", "qa_outputs"}
_LOOPS = re.compile("layer|group|block|depth")  # numbers of modules, which are made one by one


def read_config(folder: Path, tensors: int) -> PreTrainedConfig:
    """Reads the config as transformers does, without its note on how the weights are stored.

    Args:
        folder: That holds the model.
        tensors: How many its files hold: there cannot be more layers than these.

    Raises:
        DamagedFile: it describes no model.
    """
    check_config(folder, tensors)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a foreign file may be wrong in any way
        raise DamagedFile(f"{folder / CONFIG} describes no model ({one_line(error)}). {MOVE}") from error
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Reads the tokenizer in a folder, in which there are no pipes and no links to files elsewhere.

    Raises:
        DamagedFile: there are. Whatever else is wrong, transformers and tokenizers say in errors of their own.
    """
    check_inside(folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    if "local_files_only" in tokenizer.init_kwargs:
        # transformers notes there whether it was offline, and writes it into tokenizer_config.json; the files of a
        # stage, and so a run's digest, do not depend on that
        tokenizer.init_kwargs["local_files_only"] = False
    return tokenizer


def check_config(folder: Path, tensors: int) -> None:
    """Checks the numbers in a config against the number of tensors in the files.

    Raises:
        DamagedFile: names the one that cannot.
    """
    for key, value in read_config_json(folder).items():
        if isinstance(value, int) and _LOOPS.search(key) and value > max(tensors, 64):
            raise DamagedFile(f"{folder / CONFIG} asks for {value} {key}, and there are {tensors} tensors. {MOVE}")


def build_model(folder: Path, config: PreTrainedConfig, shapes: Mapping[str, tuple[int, ...]]) -> "Skeleton":
    """Builds what a config describes on torch's meta device, and checks it against the shapes in the files.

    Raises:
        DamagedFile: the config describes no model of transformers, or one of other shapes.
    """
    kind = _model_class(folder, config)
    try:
        with torch.device("meta"), quiet_loading():
            empty = kind(config)
            expected = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    except Exception as error:  # whatever a config may say that no model can be
        raise DamagedFile(f"{folder / CONFIG} describes no model ({one_line(error)}). {MOVE}") from error
    check_shapes(folder, expected, shapes)
    check_memory(folder, 4 * sum(map(prod, expected.values())))
    return Skeleton(folder, kind, config)


def check_shapes(folder: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that tensors which model and files both name have one shape.

    Raises:
        DamagedFile: names the first that has not.
    """
    for name, shape in found.items():
        if expected.get(name, shape) != shape:
            wanted = list(expected[name])
            raise DamagedFile(f"{folder}: {name} has the shape {list(shape)}, its config says {wanted}. {MOVE}")


def refuse_dropped(model: PreTrainedModel, unexpected: Iterable[str], tensors: Mapping[str, Any], name: str) -> None:
    """Refuses files with more of an encoder than its config names, such as further layers.

    Heads of another use, the pooler and buffers that transformers computes itself may be left out.

    Args:
        model: As loaded.
        unexpected: Names in the files that it has no place for.
        tensors: What the files hold.
        name: Of the model, for messages.

    Raises:
        DamagedFile: names the first that would be dropped.
    """
    whole = model.base_model is model
    for key in sorted(unexpected):
        inside = whole or key.startswith(f"{model.base_model_prefix}.")
        if inside and not _LEFT_OUT & set(key.split(".")) and _is_floating(tensors.get(key)):
            raise DamagedFile(f"{name} has {key}, which its config does not name: it would be left out. {MOVE}")


def _is_floating(tensor: Any) -> bool:
    return tensor is None or tensor.dtype.is_floating_point


def _model_class(folder: Path, config: PreTrainedConfig) -> type[PreTrainedModel]:
    names = getattr(config, "architectures", None)
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    kind = model_class(name)
    ours = isinstance(kind, type) and issubclass(kind, PreTrainedModel)
    if kind is None or not ours or kind.config_class is not type(config):
        raise DamagedFile(f"{folder / CONFIG} names the architecture {names!r}, which transformers has not. {MOVE}")
    found: type[PreTrainedModel] = kind
    return found


@dataclass(frozen=True)
class Skeleton:
    """Holds a model that is known to fit its files, before it has weights."""

    folder: Path
    kind: type[PreTrainedModel]
    config: PreTrainedConfig

    def fill(self, tensors: Mapping[str, Tensor]) -> PreTrainedModel:
        """Builds the model with its weights, in the type that its config says, in evaluation mode.

        Raises:
            DamagedFile: a weight is missing or has another shape.
        """
        try:
            with quiet_loading():
                model, info = self.kind.from_pretrained(
                    None, config=self.config, state_dict=dict(tensors), dtype="auto", output_loading_info=True
                )
        except Exception as error:  # as above
            raise DamagedFile(f"{self.folder} cannot be loaded ({one_line(error)}). {MOVE}") from error
        refuse_dropped(model, info["unexpected_keys"], tensors, str(self.folder))
        misfits = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"], *info["error_msgs"]]))
        if misfits:
            raise DamagedFile(f"{self.folder} has no weights that fit {misfits[0]}. {MOVE}")
        found: PreTrainedModel = model
        return found


def load_dense(folder: Path) -> PreTrainedModel:
    """Loads a model whose files hold every entry of its weights, as `save_pretrained` writes it.

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
