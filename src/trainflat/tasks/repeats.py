"""Finds texts that repeat: training rows among the evaluation rows, and one text with two labels."""

import unicodedata
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from trainflat.tasks.rows import LABEL, Rows

TEXTS = ("text", "text_pair")
QUESTIONS = (*TEXTS, "question", "context")  # all columns that a model reads


def text_keys(rows: Rows, *, ordered: bool = False) -> list[tuple[bytes, ...]]:
    """Computes a key per row, equal for equal texts up to case, spaces and, unless ``ordered``, a pair's order.

    Swapped pairs count as equal because paraphrase tasks are symmetric: a model that was trained on (a, b) has seen
    (b, a). For contradicting labels the order matters, since entailment is not symmetric.
    """
    columns = [rows.columns[name] for name in QUESTIONS if name in rows.columns]
    keys = [[_digest(text) for text in texts] for texts in zip(*columns, strict=True)]
    return [tuple(key if ordered else sorted(key)) for key in keys]


def _digest(text: str) -> bytes:
    # 16 bytes instead of the text: the keys of QQP's 364k pairs then fit beside the rows.
    if not text.isascii():
        # NFKC unites composed and decomposed accents and full-width letters; Cf are invisible marks (soft hyphens).
        text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return blake2b(" ".join(text.casefold().split()).encode("utf8", "surrogatepass"), digest_size=16).digest()


def repeat_notes(training: Rows, evaluation: Mapping[str, Rows], labels: Sequence[str]) -> list[str]:
    """Notes evaluation rows that also occur in training, and training texts that have two classes.

    Args:
        labels: Names of the classes; empty for regression and spans, where one text may have several targets.
    """
    seen = set(text_keys(training))
    notes = []
    for name, part in evaluation.items():
        shared = [row for row, key in enumerate(text_keys(part)) if key in seen]
        if shared:
            notes.append(
                f"{len(shared)} of the {len(part)} {name} rows are training rows too (capitals, spaces and the order "
                f"of a pair aside), such as {_shown(part, shared[0])}: scores on training rows are too high. Remove "
                "them from one of the two splits."
            )
    return [*notes, *(_contradictions(training, labels) if labels else [])]


def _contradictions(rows: Rows, labels: Sequence[str]) -> list[str]:
    first: dict[tuple[bytes, ...], int] = {}
    found: dict[tuple[bytes, ...], tuple[int, int]] = {}
    answers = rows.columns[LABEL]
    for row, key in enumerate(text_keys(rows, ordered=True)):
        before = first.setdefault(key, row)
        if answers[before] != answers[row]:
            found.setdefault(key, (before, row))
    if not found:
        return []
    one, other = next(iter(found.values()))
    named = f"{labels[answers[one]]} and {labels[answers[other]]}"
    count = "1 text of the training rows has" if len(found) == 1 else f"{len(found)} texts of the training rows have"
    return [f"{count} two labels, such as {_shown(rows, one)} ({named:.80}): no model can learn both."]


def _shown(rows: Rows, row: int) -> str:
    name = next(name for name in QUESTIONS if name in rows.columns)
    text = " ".join(rows.columns[name][row].split())
    return repr(text if len(text) <= 60 else text[:59] + "…")
