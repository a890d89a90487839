"""Refuses models that cannot be trained as encoders, in one line, before anything is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainflat.core.errors import InputError, is_fault, one_line
from trainflat.models.classes import class_names
from trainflat.tasks.base import Head
from trainflat.tasks.labels import match_names

_UNKNOWN = "a zqxj \u0416 \u6f22 \U0001f9ff \u0301"  # letters of several scripts, some of them in no vocabulary
FILES = "config.json, model.safetensors and the tokenizer's files"
_FINE_TUNE = "Fine-tune it first, or name the task that it was fine-tuned on."
_ITS_TASK = "Name the task that it was fine-tuned on, or give a model that was fine-tuned on this one."


def check_folder(folder: Path) -> None:
    """Checks that config and weights are there, and that the weights are no pickle.

    Raises:
        InputError: names what is missing.
    """
    if not (folder / "config.json").is_file():
        inside = sorted(config.parent for config in folder.glob("*/*/config.json"))  # as the stages in a run's folder
        if inside:
            raise InputError(f"{folder} is no model but holds some. Give one of them, such as {inside[0]}.")
        raise InputError(f"model folder {folder} has no config.json. Give a folder with {FILES}.")
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"model folder {folder} holds its weights as a pickle ({pickles[0]}), which could run any code when read. "
            "Save it again as safetensors: model.save_pretrained(folder)."
        )
    raise InputError(f"model folder {folder} has no weights (*.safetensors). Give a folder with {FILES}.")


def check_is_encoder(config: PreTrainedConfig, name: str) -> None:
    """Checks that a model reads text in both directions and has no decoder.

    Raises:
        InputError: names the kind of model.
    """
    kind = type(config)
    # BERT can be run as a causal model too, so only what fills in no masked words counts as a generator.
    only_generates = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False) or only_generates:
        raise InputError(
            f"model {name!r} ({config.model_type}) is not an encoder: it has a decoder. "
            "Choose BERT, RoBERTa, `minilm`, ..."
        )


def check_labels(config: PreTrainedConfig, head: Head, name: str) -> None:
    """Checks that a fine-tuned model has the task's kind of head and its classes, in any capitals and order.

    Raises:
        InputError: it has another head; or more or fewer classes, or others.
    """
    _check_kind(config, head, name)
    if head.kind != "classification":
        return
    known = class_names(config)
    if match_names(head.labels, known) is None:
        raise InputError(
            f"model {name!r} was fine-tuned for the classes {_some(known)}, the task has {_some(head.labels)}. "
            f"{_ITS_TASK} Rows of `files` may also number the model's classes from 0."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"{name:.60}" for name in names[:20]) + (", ..." if len(names) > 20 else "")


def _check_kind(config: PreTrainedConfig, head: Head, name: str) -> None:
    """Checks the kind of head by the name of the model's class, before any weight is read."""
    classes = tuple(config.architectures or ())
    if classes and classes[0].endswith(("Model", "ForMaskedLM", "ForPreTraining")):
        raise InputError(f"model {name!r} has no head for this task (it is a {classes[0]}). {_FINE_TUNE}")
    spans, rows = (any(one.endswith(end) for one in classes) for end in ("QuestionAnswering", "SequenceClassification"))
    problem = config.problem_type if rows else None
    numbers = rows and (config.num_labels == 1 or problem == "regression")
    kind = "spans" if spans else "numbers" if numbers else "classes" if rows else ""
    kind = "several labels per row" if problem == "multi_label_classification" else kind
    wanted = {"spans": "spans", "regression": "numbers", "classification": "classes"}[head.kind]
    if kind and kind != wanted:
        raise InputError(f"model {name!r} was fine-tuned for {kind}, the task has {wanted}. {_ITS_TASK}")


def check_weights(model: PreTrainedModel, info: Mapping[str, Any], name: str, *, complete: bool = False) -> None:
    """Checks that the encoder's weights came from the checkpoint; only the task head and the pooler may be new.

    Args:
        model: As loaded.
        info: What ``from_pretrained(output_loading_info=True)`` reports.
        name: Of the model, for messages.
        complete: Not even these may be new.

    Raises:
        InputError: names the first weight that is missing or has another shape.
    """
    if model.base_model is model:  # transformers' way to say that there is none
        raise InputError(
            f"model {name!r} ({type(model).__name__}) has no encoder below its head. Choose BERT, RoBERTa, ..."
        )
    if info["mismatched_keys"]:
        key, found, wanted = min(info["mismatched_keys"])
        raise InputError(
            f"model {name!r} does not fit: {key} has shape {list(found)}, {list(wanted)} is needed. "
            "Its head was trained for another task, or its config.json is not its own; give the encoder it came from."
        )
    prefix = f"{model.base_model_prefix}."
    missing = sorted(key for key in info["missing_keys"] if key.startswith(prefix) and "pooler" not in key.split("."))
    if complete and not missing and info["missing_keys"]:
        raise InputError(
            f"model {name!r} has no head for this task ({min(info['missing_keys'])} is missing). {_FINE_TUNE}"
        )
    if missing:
        raise InputError(
            f"model {name!r} lacks {len(missing)} of the encoder's weights, such as {missing[0]}; they would be "
            "random. Give a complete checkpoint of the architecture that its config.json names."
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """Checks that a tokenizer has words, that each has an embedding, and that rows can be padded.

    Raises:
        InputError: says which of these does not hold.
    """
    vocabulary = tokenizer.get_vocab()
    # Where the files are absent, transformers makes a tokenizer of the special tokens alone: every word is unknown.
    if set(vocabulary) <= set(tokenizer.all_special_tokens):
        raise InputError(
            f"model {name!r} comes without a tokenizer. Put its tokenizer's files (tokenizer.json) beside it."
        )
    if tokenizer.pad_token is None:
        raise InputError(
            f"the tokenizer of model {name!r} has no padding token. Set pad_token in its tokenizer_config.json."
        )
    try:
        tokenizer(_UNKNOWN, _UNKNOWN)
    except BaseException as error:  # of any kind
        if not is_fault(error):
            raise
        raise InputError(
            f"the tokenizer of model {name!r} cannot read every text ({one_line(error)}). Put one beside it that has a "
            "token for what it does not know, such as [UNK]."
        ) from error
    _check_embeddings(max(vocabulary.values()), model, name)


def _check_embeddings(highest: int, model: PreTrainedModel, name: str) -> None:
    try:
        embeddings = model.get_input_embeddings()
    except NotImplementedError:  # CANINE hashes characters, so any id will do
        return
    if isinstance(embeddings, nn.Embedding) and highest >= embeddings.num_embeddings:
        raise InputError(
            f"the tokenizer of model {name!r} has ids up to {highest}, but there are only "
            f"{embeddings.num_embeddings} embeddings. Put the tokenizer that the model was trained with beside it."
        )
