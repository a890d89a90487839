"""Loads pre-trained encoders in float32, under a head that only the seed decides."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainflat.core.errors import InputError, is_fault, one_line
from trainflat.models.base import Encoder, keep_layers, max_positions
from trainflat.models.checks import (
    FILES,
    check_is_encoder,
    check_labels,
    check_tokenizer,
    check_weights,
)
from trainflat.models.classes import ClassOrder, find_order, reorder_head
from trainflat.models.locate import NotHere, locate
from trainflat.models.meeting import fit_inputs
from trainflat.models.quiet import quiet_loading
from trainflat.models.safe_load import check_config, read_tokenizer, refuse_dropped
from trainflat.models.stored import OWN_FORMS, check_memory, check_sealed, quant_method, read_tensors, stored_tensors
from trainflat.tasks.base import Head


def load_encoder(
    name: str, head: Head, *, layers: int | None = None, seed: int = 0, fine_tuned: bool = False
) -> Encoder:
    """Loads a pre-trained encoder with the head that a task needs.

    The encoder's weights must all come from the checkpoint. What it does not have, the head and perhaps the pooler, is
    drawn from ``seed`` alone: the same whatever was drawn before, and however many layers are kept (but for the scale
    that ModernBERT derives from their number). A checkpoint that was saved with a head that fits keeps it. The caller's
    random state is left as it was. No code that comes with a model is run, and nothing is unpickled.

    Args:
        name: A name in ``MODELS``, a folder, or a name on the Hugging Face hub.
        head: What to put on top; as a task says.
        layers: How many layers to keep, the first ones; None keeps all.
        seed: Of the new weights.
        fine_tuned: Nothing may be new: the checkpoint has a head for this very task.

    Raises:
        InputError: the model cannot be found, is no encoder, is incomplete, has too few layers or no tokenizer, or no
            head for the task where it must have one.
    """
    source = locate(name)
    with failures_in_one_line(name), quiet_loading():
        config, order = _config(source, head, layers, name, fine_tuned=fine_tuned)
        whole = set(_empty(source, load_config(source), head).state_dict()) if layers else set()
        model = _load_model(source, config, head, seed, name, whole=whole, fine_tuned=fine_tuned)
        if order is not None and order.moved:
            reorder_head(model, order, name)
        tokenizer = read_tokenizer(source)
    return _encoder(model, tokenizer, name, order)


def load_on_meta(name: str, head: Head, *, layers: int | None = None, fine_tuned: bool = False) -> Encoder | None:
    """Builds on torch's meta device, without weights, the encoder that :func:`load_encoder` would load.

    Returns:
        None for what may be a name on the hub, which does not answer, where its cache does not hold it.

    Raises:
        InputError: whatever ``load_encoder`` refuses, but for weights that are missing or do not fit.
    """
    try:
        source = locate(name)
    except NotHere as error:
        if error.near:
            raise
        return None
    with failures_in_one_line(name), quiet_loading():
        config, order = _config(source, head, layers, name, fine_tuned=fine_tuned)
        model = _empty(source, config, head)
        tokenizer = read_tokenizer(source)
    return _encoder(model, tokenizer, name, order)


def _encoder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, order: ClassOrder | None
) -> Encoder:
    check_tokenizer(tokenizer, model, name)
    length = _fit_length(model, tokenizer)
    notes = fit_inputs(model, tokenizer), order.note if order else ""
    return Encoder(model, tokenizer, name, length, " ".join(note for note in notes if note))


def _config(
    source: Path, head: Head, layers: int | None, name: str, *, fine_tuned: bool = False
) -> tuple[PreTrainedConfig, ClassOrder | None]:
    config = load_config(source)
    check_is_encoder(config, name)
    if layers is not None:
        keep_layers(config, layers, name)
    if fine_tuned:
        check_labels(config, head, name)
    order = find_order(config, head, name)
    set_head(config, head)
    return config, order


def load_config(folder: Path) -> PreTrainedConfig:
    """Reads a model's config; its files fit it and, where the folder is sealed, are what was written.

    Raises:
        InputError: config or weights are missing, the weights are a pickle, or their form is unknown.
        DamagedFile: a file is not what was written, or the config does not fit the weights.
    """
    check_sealed(folder)
    check_config(folder, len(stored_tensors(folder)))
    form = quant_method(folder)
    if form not in (None, *OWN_FORMS):
        raise InputError(f"{folder} holds weights as {form:.60}. Give the model that it was made from.")
    return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def set_head(config: PreTrainedConfig, head: Head) -> None:
    """Writes the head's outputs and their names into ``config``."""
    if head.kind == "classification":
        config.problem_type = "single_label_classification"
        config.id2label = dict(enumerate(head.labels))
        config.label2id = {label: index for index, label in enumerate(head.labels)}
    else:
        config.problem_type = "regression" if head.kind == "regression" else None
        config.num_labels = 1 if head.kind == "regression" else 2  # spans: start and end


def _load_model(
    source: Path, config: PreTrainedConfig, head: Head, seed: int, name: str, *, whole: set[str], fine_tuned: bool
) -> PreTrainedModel:
    """Loads the weights; names in ``whole`` may be left out, for they are of layers that are not kept."""
    options: dict[str, Any] = {
        "config": config,
        "dtype": torch.float32,  # the default is the checkpoint's: float16 files would be trained in float16
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # so that a misfit comes back as data; the check below refuses it
    }
    tensors: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):  # loads on the CPU, also where there is a GPU
        torch.random.default_generator.manual_seed(seed)
        if quant_method(source) is None:
            kind = type(_empty(source, config, head))
            tensors = read_tensors(stored_tensors(source))
            model, info = kind.from_pretrained(None, state_dict=dict(tensors), **options)
        else:  # the quantizers of this package check its weights
            model, info = _auto(head).from_pretrained(source, use_safetensors=True, trust_remote_code=False, **options)
    check_weights(model, info, name, complete=fine_tuned)
    refuse_dropped(model, set(info["unexpected_keys"]) - whole, tensors, f"model {name!r}")
    return model


def _empty(source: Path, config: PreTrainedConfig, head: Head) -> PreTrainedModel:
    """Builds the model on torch's meta device, if it is not far larger than the files."""
    with torch.device("meta"):
        model: PreTrainedModel = _auto(head).from_config(config, trust_remote_code=False)
    check_memory(source, 4 * sum(p.numel() for p in model.state_dict().values()))
    return model


def _auto(head: Head) -> Any:
    return AutoModelForQuestionAnswering if head.kind == "spans" else AutoModelForSequenceClassification


def _fit_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Gives the model's limit to the tokenizer too, whose file often has none, or one of some earlier use."""
    positions = max_positions(model)
    if positions is not None:
        tokenizer.model_max_length = positions
    return int(tokenizer.model_max_length)


@contextmanager
def failures_in_one_line(name: str) -> Iterator[None]:
    """Turns whatever loading raises inside the block into one line.

    Raises:
        InputError: names the model and the reason.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:  # a foreign file may be wrong in any way, and each library raises errors of its own
        if not is_fault(error):
            raise
        raise InputError(
            f"model {name!r} cannot be loaded: {one_line(error, 200)}. Give a folder with {FILES}, or `minilm`."
        ) from error
