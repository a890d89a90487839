"""Loads and checks teachers: fine-tuned models with the student's vocabulary and classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from trainflat.anatomy.heads import Kind
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.models import Encoder, load_encoder, load_on_meta
from trainflat.models.checks import check_labels
from trainflat.models.classes import class_names
from trainflat.tasks.base import Head
from trainflat.tasks.labels import match_names

KEY = "training.distillation.teacher"


def load_teacher(name: str, head: Head, student: Encoder, max_length: int, key: str = KEY) -> Encoder:
    """Loads a fine-tuned model from a folder or the hub, for a student and a task; ``key`` is where a recipe names it.

    Raises:
        InputError: there is none; it was fine-tuned for another kind of answer or other classes; it reads another
            vocabulary than the student, or fewer than ``max_length`` tokens.
    """
    with _named(key):
        teacher = load_encoder(name, head, fine_tuned=True)
        check_reads_alike(teacher, student, max_length)
    return teacher


def load_teacher_on_meta(
    name: str, head: Head, student: Encoder | None, max_length: int, key: str = KEY
) -> Encoder | None:
    """Loads a teacher without weights, for a plan; None where the hub is silent. Refuses as :func:`load_teacher`."""
    with _named(key):
        teacher = load_on_meta(name, head, fine_tuned=True)
        if teacher is not None and student is not None:
            check_reads_alike(teacher, student, max_length)
    return teacher


def check_weight(weight: float | str, head: Head) -> None:
    """Checks that a weight by row (``entropy``) fits the kind of head.

    Raises:
        InputError: it is taken from an entropy, and the answers are numbers.
    """
    if weight == "entropy" and head.kind == "regression":
        raise InputError(
            "training.distillation.weight entropy is for classes and spans, and the task has numbers. "
            "Give a share in [0, 1]."
        )


def check_reads_alike(teacher: Encoder, student: Encoder, max_length: int) -> None:
    """Checks that the teacher reads the student's token ids, and as many of them as rows will have.

    Raises:
        InputError: the vocabularies differ, the tokenizers give other inputs, or rows are too long.
    """
    _check_tokenizer(teacher.tokenizer, student.tokenizer, f"model {teacher.name!r}", f"the student {student.name!r}")
    if max_length > teacher.max_length:
        raise InputError(
            f"model {teacher.name!r} reads at most {plural(teacher.max_length, 'token')}, training.max_length is "
            f"{max_length}. "
            "Lower it, or choose another teacher."
        )


def teacher_of(student: nn.Module, given: Any, tokenizer: Any = None) -> nn.Module:
    """Returns the teacher that a user of the Trainer gave: a model, or a name, which is loaded.

    Args:
        student: A transformers model with a head for rows or spans.
        given: A model, a folder or a name on the hub.
        tokenizer: The student's, if it is known: then that of a teacher given by name must be the same.

    Raises:
        InputError: as :func:`load_teacher`; or the teacher is the student.
    """
    if given is student:
        raise InputError("the teacher is the student itself. Give another model, or a copy of this one.")
    head = head_of(student)
    with _named():
        if isinstance(given, nn.Module):
            if getattr(given, "config", None) is not None:
                _check_order(given.config, head, type(given).__name__)
            return given
        teacher = load_encoder(str(given), head, fine_tuned=True)
        if tokenizer is not None:
            _check_tokenizer(teacher.tokenizer, tokenizer, f"model {teacher.name!r}", "the student")
    found: nn.Module = teacher.model
    return found


def head_of(model: Any) -> Head:
    """Determines the kind of head of a transformers model.

    Raises:
        InputError: one that nothing is distilled into.
    """
    if type(model).__name__.endswith("QuestionAnswering"):
        return Head("spans")
    problem = model.config.problem_type
    if problem == "multi_label_classification":
        refuse_kind(model, "labels")
    if type(model).__name__.endswith(("TokenClassification", "MaskedLM")):
        refuse_kind(model, "tokens")
    if problem == "regression" and model.config.num_labels > 1:
        refuse_kind(model, "numbers")
    if model.config.num_labels == 1:
        return Head("regression")
    return Head("classification", tuple(str(model.config.id2label[i]) for i in range(model.config.num_labels)))


def refuse_kind(model: Any, kind: Kind) -> None:
    """Raises InputError for heads that cannot be distilled: multi-label, several numbers, tokens."""
    if kind in ("labels", "tokens") or (kind == "numbers" and model.config.num_labels > 1):
        raise InputError(
            f"distillation knows one class or one number per row, and spans; {type(model).__name__} has {kind}."
        )


def _check_tokenizer(teacher: Any, student: Any, who: str, whose: str) -> None:
    known, wanted = teacher.get_vocab(), student.get_vocab()
    if known != wanted:
        other = min((w for w in known.keys() | wanted.keys() if known.get(w) != wanted.get(w)), key=str)
        raise InputError(
            f"{who} has another vocabulary than {whose}: {len(known)} words, not {len(wanted)}, and {other!r} is "
            f"{known.get(other)}, not {wanted.get(other)}. Choose a teacher with the student's tokenizer."
        )
    if set(teacher.model_input_names) != set(student.model_input_names):
        raise InputError(
            f"{who} reads {', '.join(teacher.model_input_names)}, but the tokenizer of {whose} gives "
            f"{', '.join(student.model_input_names)}. Choose a teacher of the student's kind."
        )


def _check_order(config: Any, head: Head, name: str) -> None:
    """Raises InputError unless the classes have the student's order: a model of the user's own is not reordered."""
    check_labels(config, head, name)
    places = match_names(head.labels, class_names(config))
    if head.kind == "classification" and places != sorted(places or []):
        raise InputError(
            f"{name} has the student's classes in another order: {', '.join(class_names(config)):.200}. Give the "
            "name or the folder of the model instead: it is put in order when it is loaded."
        )


@contextmanager
def _named(key: str = KEY) -> Iterator[None]:
    """Prefixes errors of the block with the recipe key of the teacher."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
