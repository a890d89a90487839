"""Holds the classes of shrunk models by name, such as ``ShrunkBertModel``, and enters them in transformers' tables.

They are derived from transformers' own when a name is first asked for: by ``from_pretrained``, by pickle, by a reader.
"""

from typing import Any

import transformers

from trainflat.anatomy import FAMILIES
from trainflat.anatomy.shrunk import heads_of, shrunk_config, shrunk_model


def __getattr__(name: str) -> Any:
    dense = getattr(transformers, name.removeprefix("Shrunk"), None) if name.startswith("Shrunk") else None
    is_config = isinstance(dense, type) and issubclass(dense, transformers.PreTrainedConfig)
    config = dense if is_config else getattr(dense, "config_class", None)
    if getattr(config, "model_type", None) not in FAMILIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register(config)
    return shrunk_config(dense) if is_config else shrunk_model(dense)


def model_class(name: str) -> Any:
    """Returns the class of transformers, or of shrunk models, that config.json names; None if there is none."""
    if not name.isidentifier():
        return None
    try:
        return __getattr__(name)
    except AttributeError:
        return getattr(transformers, name, None)


def _register(dense: Any) -> None:
    """Enters an architecture's shrunk classes in the tables of ``AutoConfig`` and ``AutoModel...``."""
    config = shrunk_config(dense)
    transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
    for auto, name in heads_of(dense).items():
        getattr(transformers, auto).register(config, shrunk_model(getattr(transformers, name)), exist_ok=True)
