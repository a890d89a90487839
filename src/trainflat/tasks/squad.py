"""SQuAD v1.1: find the answer to a question in a paragraph (Rajpurkar et al., EMNLP 2016, arXiv:1606.05250)."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.core.untrusted import parse_json
from trainflat.tasks.base import Decoded, EncodedSplit, Head, Predictions, Task, Tokenizer
from trainflat.tasks.encoding import make_split
from trainflat.tasks.metrics import check_finite
from trainflat.tasks.repeats import repeat_notes
from trainflat.tasks.rows import Rows, fingerprints
from trainflat.tasks.sources import Source
from trainflat.tasks.spans import Window, best_span, encode_windows
from trainflat.tasks.splits import arrange
from trainflat.tasks.squad_metrics import best_over, exact_match, token_f1
from trainflat.tasks.tables import Table

SOURCE = Source("squad", "rajpurkar/squad", None, {"train": 87599, "validation": 10570})


class Squad(Task):
    """SQuAD v1.1: which span of the paragraph answers the question? F1 and exact match.

    A paragraph too long for one input is read in overlapping windows, and the span with the highest logits in any of
    them is the answer. In training, a window that does not hold the whole answer has position 0 (the first token) as
    its target, as in BERT's published code.

    Args:
        data: Folder given by ``--data``; by default TRAINFLAT_DATA, else the hub.
        seed: Seed of ``holdout`` and ``rows``.
        train: Training split; ``a+b`` joins two.
        evaluate: Evaluation splits, the main one first.
        holdout: Share of the training questions to score instead of ``evaluate``, for tuning.
        rows: Number of training questions to draw; all by default.
        doc_stride: Overlap of two windows in tokens; in BERT's published code the distance between their starts.
        n_best: Number of start and of end positions that are combined per window.
        max_answer_length: Longest answer, in tokens.
    """

    name = "squad"
    head = Head("spans")
    metric = "f1"

    def __init__(
        self,
        *,
        data: Path | None = None,
        seed: int = 0,
        train: str = "train",
        evaluate: list[str] | None = None,
        holdout: float = 0.0,
        rows: int | None = None,
        doc_stride: int = 128,
        n_best: int = 20,
        max_answer_length: int = 30,
    ) -> None:
        _check_least(0, doc_stride=doc_stride)
        _check_least(1, n_best=n_best, max_answer_length=max_answer_length)
        self.doc_stride, self.n_best, self.max_answer_length = doc_stride, n_best, max_answer_length

        self.training, self.evaluation = arrange(
            lambda names: SOURCE.rows(names, data, _rows),
            train=train,
            evaluate=["validation"] if evaluate is None else evaluate,
            holdout=holdout,
            rows=rows,
            seed=seed,
            by_class=False,
        )
        self.split = next(iter(self.evaluation))
        self.fingerprints = fingerprints(self.training, self.evaluation)
        self.notes = tuple(repeat_notes(self.training, self.evaluation, ()))

    def encode(self, tokenizer: Tokenizer, max_length: int) -> tuple[EncodedSplit, dict[str, EncodedSplit]]:
        """Encodes the splits as windows, one or more per question; see :meth:`Task.encode`."""
        windows = self._windows(self.training, tokenizer, max_length)
        train = make_split("train", [window.row for window in windows], by_length=False)
        return train, self.encode_evaluation(tokenizer, max_length)

    def encode_evaluation(self, tokenizer: Tokenizer, max_length: int) -> dict[str, EncodedSplit]:
        """Encodes the evaluation splits alone, as :meth:`encode` does."""
        evaluation = {}
        for name, questions in self.evaluation.items():
            found = self._windows(questions, tokenizer, max_length)
            extras: dict[str, list[Any]] = {
                "question": [w.question for w in found],
                "offsets": [w.offsets for w in found],
            }
            evaluation[name] = make_split(name, [w.row for w in found], extras, by_length=True)
        return evaluation

    def _windows(self, rows: Rows, tokenizer: Tokenizer, max_length: int) -> list[Window]:
        return list(encode_windows(tokenizer, rows.columns, max_length, self.doc_stride))

    def asking(self, contexts: Sequence[str], questions: Sequence[str]) -> Self:
        """Returns the task with other questions, whose answers nobody gives, as its only evaluation split."""
        columns: dict[str, list[Any]] = {"context": list(contexts), "question": list(questions)}
        columns |= {"answers": [[""]] * len(questions), "starts": [[0]] * len(questions)}
        asked = copy(self)
        asked.split = "asked"
        asked.evaluation = {asked.split: Rows(columns, "asked")}
        return asked

    def answers(self, split: EncodedSplit, predictions: Predictions) -> list[str]:
        """Decodes the predicted answer to every question of the split, in the order of the data.

        Args:
            split: Evaluation split from :meth:`encode`.
            predictions: Start and end logits, each [N, T], of the N windows in the order of the split.

        Raises:
            TrainingDiverged: a logit is NaN or infinite.
        """
        start, end = (np.asarray(part, dtype=np.float64) for part in predictions)
        if len(start) != len(split) or len(end) != len(split):
            raise ValueError(
                f"{split.name} has {plural(len(split), 'window')}, got {len(start)} starts and {len(end)} ends."
            )
        check_finite(split.name, start, end)
        contexts = self.evaluation[split.name].columns["context"]
        best = [(-np.inf, "")] * len(contexts)  # a question without any valid span has the empty answer
        windows = zip(split.extras["question"], split.extras["offsets"], start, end, strict=True)
        for question, offsets, start_T, end_T in windows:
            # Predictions are padded to the longest window of the split.
            logits = start_T[: len(offsets)], end_T[: len(offsets)]
            found = best_span(*logits, offsets, self.n_best, self.max_answer_length)
            if found is not None and found[0] > best[question][0]:
                best[question] = (found[0], contexts[question][found[1] : found[2]])
        return [text for _, text in best]

    def score(self, split: EncodedSplit, predictions: Predictions) -> dict[str, float]:
        """Computes F1 and exact match in percent; see :meth:`answers`."""
        answers = self.answers(split, predictions)
        golds = self.evaluation[split.name].columns["answers"]
        return {"f1": best_over(token_f1, answers, golds), "exact_match": best_over(exact_match, answers, golds)}

    def decode(self, split: EncodedSplit, predictions: Predictions) -> Decoded:
        """Decodes the answers; the constant prediction to beat is the empty answer. See :meth:`Task.decode`."""
        given = np.array(self.answers(split, predictions), dtype=object)
        gold = np.empty(len(given), dtype=object)  # np.array() would make a matrix of tuples of one length
        gold[:] = [tuple(answers) for answers in self.evaluation[split.name].columns["answers"]]
        return Decoded(gold, given, {"nothing": ""}, _mean_f1)


def _check_least(least: int, **options: int) -> None:
    for name, value in options.items():
        if value < least:
            raise InputError(f"{name} is a number of tokens or spans, at least {least}, got {value}.")


def _mean_f1(gold: np.ndarray, given: np.ndarray) -> float:
    return best_over(token_f1, given.tolist(), gold.tolist())


def _rows(table: Table, partial: bool) -> Rows:
    columns: dict[str, list[Any]] = {key: table.texts(key) for key in ("question", "context")}
    columns["answers"], columns["starts"] = [], []
    for row, (value, context) in enumerate(zip(table.column("answers"), columns["context"], strict=True)):
        texts, starts = _answer(table, row, value, context)
        columns["answers"].append(texts)
        columns["starts"].append(starts)
    return Rows(columns, table.source, partial)


def _answer(table: Table, row: int, value: Any, context: str) -> tuple[list[str], list[int]]:
    try:
        value = parse_json(value) if isinstance(value, str) else value  # CSV has no nested values
        texts, starts = list(value["text"]), [int(start) for start in value["answer_start"]]
        pairs: Sequence[tuple[str, int]] = list(zip(texts, starts, strict=True))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        example = '{"text": ["..."], "answer_start": [0]}'
        raise table.fault(row, "answers", f"{value!r:.60} is not of the form {example}. Write it so.") from error
    if not pairs:
        raise table.fault(row, "answers", "there is no answer. SQuAD v1.1 has only questions that have one.")
    for text, start in pairs:
        if not isinstance(text, str) or not text or start < 0 or context[start : start + len(text)] != text:
            raise table.fault(
                row, "answers", f"{text!r:.60} is not at character {start} of the context. Correct the offset."
            )
    return texts, starts
