"""Scores int8 copies of a model."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.evaluation.answers import main_score
from trainflat.evaluation.behaviour import Behaviour
from trainflat.evaluation.predictions import predictions_of
from trainflat.quantization import Q8BERT, Activations, quantize_dynamic
from trainflat.records.run import Int8
from trainflat.tasks.base import EncodedSplit, Task


def measure_int8(
    task: Task,
    model: PreTrainedModel,
    evaluation: Mapping[str, EncodedSplit],
    tokenizer: PreTrainedTokenizerBase,
    *,
    activations: Activations = "token",
    embeddings: bool = False,
    head: bool = False,
    behaviour: Behaviour | None = None,
) -> Int8:
    """Scores the int8 copy that ``quantize_dynamic`` makes; the model and the random state are left alone.

    Args:
        task: That the model was trained for.
        model: In float.
        evaluation: Splits to score on.
        tokenizer: Pads.
        activations: How inputs are rounded; with ``batch`` and ``torch`` a score depends on the batches, which are 32
            rows in order.
        embeddings: Whether lookup tables are rounded too.
        head: Whether linear layers outside the encoder are.
        behaviour: What is asked of the copy beside its scores.

    Raises:
        InputError: the model has nothing to round, or is int8 already.
    """
    small = quantize_dynamic(model, activations=activations, embeddings=embeddings, head=head)
    measured = _measured(task, small, evaluation, tokenizer, behaviour)
    return Int8(activations=activations, embeddings=embeddings, head=head, **measured)


def measure_trained_int8(
    task: Task,
    quantizer: Q8BERT,
    evaluation: Mapping[str, EncodedSplit],
    tokenizer: PreTrainedTokenizerBase,
    behaviour: Behaviour | None = None,
) -> Int8:
    """Scores the int8 copy that a quantization-aware training was for, of the quantizer's model as it is now.

    Raises:
        InputError: no range is known.
    """
    small: Any = quantizer.convert()
    return Int8(
        activations="static" if quantizer.activations == "ema" else "token",
        embeddings=quantizer.embeddings,
        head=quantizer.head,
        **_measured(task, small, evaluation, tokenizer, behaviour),
    )


def _measured(
    task: Task,
    small: Any,
    evaluation: Mapping[str, EncodedSplit],
    tokenizer: PreTrainedTokenizerBase,
    behaviour: Behaviour | None,
) -> dict[str, Any]:
    """Returns the copy's scores and bytes, and what its answers are worth where the main split is scored."""
    found = {name: predictions_of(small, split, tokenizer) for name, split in evaluation.items()}
    main = task.split if task.split in found else None
    asked = {} if behaviour is None or main is None else behaviour.of(small, found[main])
    return {
        **asked,
        "scores": {name: task.score(split, found[name]) for name, split in evaluation.items()},
        "answers": main and main_score(task, evaluation[main], found[main])[1],
        "bytes": tensor_bytes(small),
    }


def tensor_bytes(model: nn.Module) -> int:
    """Counts the bytes of a model's tensors in a file, each once however many names it has."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(tensor.nbytes for tensor in tensors.values())
