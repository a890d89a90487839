"""Derives classes for models whose layers differ in width from transformers' own, and writes the code that does so."""

import inspect
import sys
from functools import cache
from operator import attrgetter
from typing import Any

from trainflat.anatomy import narrow
from trainflat.anatomy.families import FAMILIES, SHRUNK
from trainflat.anatomy.narrow import CODE_FILE, ShrunkConfig, ShrunkModel

_HOME = "trainflat.models.shrunk"  # where pickle and transformers look for these classes by name
HEADS = {  # endings of transformers' classes, and the table in which from_pretrained finds them
    "Model": "AutoModel",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForMultipleChoice": "AutoModelForMultipleChoice",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForImageClassification": "AutoModelForImageClassification",
}
# Arguments of encoders' classes beside the config, and the part of a model that says what they were.
_PARTS = {"add_pooling_layer": "pooler", "use_mask_token": "embeddings.mask_token"}
_HEADER = '''"""Builds a {family} whose layers differ in width. Written by trainflat; needs torch and transformers only.

Load the model with trust_remote_code=True; or `import trainflat` first, and this file is not read.
"""
'''
_CLASSES = '''
from transformers import {imported}


class Shrunk{prefix}Config(ShrunkConfig, {prefix}Config):
    """Describes a {prefix} whose layers differ in width."""

    model_type = "{model_type}"
    names = {names!r}
'''
_CLASS = '''

class Shrunk{name}(ShrunkModel, {name}):
    """Holds a {name} whose layers differ in width."""

    config_class = Shrunk{prefix}Config
'''


def is_shrunk(model_type: object) -> bool:
    """Returns whether an architecture's name is of models whose layers differ in width."""
    return str(model_type).startswith(SHRUNK)


def dense_class(kind: type) -> type:
    """Returns the class of transformers that a class of shrunk models or configs was derived from; others as given."""
    # Also classes from a file beside the weights, which know nothing of this package's.
    derived = kind.__name__.startswith("Shrunk") and len(kind.__bases__) == 2
    return kind.__bases__[1] if derived else kind


def built_with(model: Any) -> dict[str, bool]:
    """Returns the arguments beside a config with which a model's class builds one that has the same parts.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=9)
        >>> built_with(BertModel(config, add_pooling_layer=False))
        {'add_pooling_layer': False}
    """
    known = inspect.signature(dense_class(type(model))).parameters
    return {name: attrgetter(path)(model) is not None for name, path in _PARTS.items() if name in known}


@cache
def shrunk_config(dense: Any) -> Any:
    """Derives the config class of shrunk models from an architecture's own."""
    own = {
        "model_type": SHRUNK + dense.model_type,
        "names": FAMILIES[dense.model_type].names(),
        "code": _code(dense),
    }
    return _derived(ShrunkConfig, dense, own)


@cache
def shrunk_model(dense: Any) -> Any:
    """Derives the class of shrunk models from a class of transformers."""
    return _derived(ShrunkModel, dense, {"config_class": shrunk_config(dense.config_class)})


def _derived(mixin: type, dense: type, own: dict[str, Any]) -> Any:
    doc = f"Holds a {dense.__name__} whose layers differ in width."
    return type(f"Shrunk{dense.__name__}", (mixin, dense), {"__module__": _HOME, "__doc__": doc, **own})


def heads_of(dense: Any) -> dict[str, str]:
    """Lists the classes that transformers has for an architecture, by the table that has them.

    Args:
        dense: The architecture's config class.

    Returns:
        Such as ``{"AutoModel": "BertModel", ...}``.
    """
    prefix, library = dense.__name__.removesuffix("Config"), sys.modules["transformers"]
    return {auto: prefix + ending for ending, auto in HEADS.items() if hasattr(library, prefix + ending)}


def auto_map(dense: Any) -> dict[str, str]:
    """Returns config.json's ``auto_map``, by which transformers finds the classes in the file beside the weights."""
    found = {"AutoConfig": dense.__name__, **heads_of(dense)}
    return {auto: f"{CODE_FILE.removesuffix('.py')}.Shrunk{name}" for auto, name in found.items()}


def _code(dense: Any) -> str:
    prefix, heads = dense.__name__.removesuffix("Config"), heads_of(dense).values()
    layout = FAMILIES[dense.model_type]
    body = inspect.getsource(narrow).partition("\n\n")[2]  # without its first docstring
    tail = _CLASSES.format(
        imported=", ".join([dense.__name__, *heads]),
        prefix=prefix,
        model_type=SHRUNK + dense.model_type,
        names=layout.names(),
    )
    classes = "".join(_CLASS.format(name=name, prefix=prefix) for name in heads)
    return _HEADER.format(family=layout.family) + "\n" + body + "\n" + tail + classes
