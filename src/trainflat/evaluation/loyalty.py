"""Loyalty of a compressed model to the one that it came from (Xu et al., EMNLP 2021, arXiv:2109.03228)."""

import numpy as np
from scipy.special import rel_entr, softmax

from trainflat.records.behaviour import Base, Loyalty
from trainflat.tasks.base import EncodedSplit, Predictions, Task
from trainflat.tasks.metrics import accuracy, evaluate
from trainflat.tasks.squad_metrics import best_over, exact_match, token_f1


def measure_loyalty(
    task: Task,
    split: EncodedSplit,
    dense: Predictions,
    predictions: Predictions,
    *,
    to: str = "dense",
    base: Base = "e",
) -> Loyalty:
    """Compares the predictions of two models on one split.

    Classes: the share of rows with the same label, and the probability loyalty of the paper. Numbers and spans, which
    the paper does not treat: correlations of the numbers; exact match and F1 of the spans, with those of ``dense`` in
    place of gold answers.

    Args:
        task: That both models learned.
        split: From the task's ``encode``.
        dense: Predictions of the model to be loyal to, in the order of the split.
        predictions: Of the other one.
        to: What the first is called.
        base: Of the logarithm, see :func:`probability_loyalty`.
    """
    if task.head.kind == "spans":
        return Loyalty(to=to, scores=_spans(task, split, dense, predictions))
    first, second = (np.asarray(part, dtype=np.float64) for part in (dense, predictions))
    if task.head.kind == "regression":
        scores = evaluate(("pearson", "spearman"), first.ravel(), second.ravel(), classes=0, positive=1)
        return Loyalty(to=to, scores=scores)
    same = accuracy(first.argmax(axis=-1), second.argmax(axis=-1))
    alike = probability_loyalty(softmax(first, axis=-1), softmax(second, axis=-1), base)
    return Loyalty(to=to, base=base, scores={"label": same, "probability": 100 * alike})


def probability_loyalty(dense_NC: np.ndarray, given_NC: np.ndarray, base: Base = "e") -> float:
    r"""Computes :math:`1 - \frac1N \sum_n \sqrt{\mathrm{JSD}(p_n, q_n)}`, the paper's probability loyalty.

    Shape suffixes: N rows, C classes; both are probabilities. With natural logarithms, which scipy's ``jensenshannon``
    takes by default, the root is at most :math:`\sqrt{\ln 2} = 0.83`, so that no model is less loyal than 0.17; with
    base 2 loyalties fill [0, 1].

    Example:
        >>> one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        >>> round(probability_loyalty(one, other), 3), probability_loyalty(one, other, 2), probability_loyalty(one, one)
        (0.167, 0.0, 1.0)
    """
    middle = (dense_NC + given_NC) / 2
    divergence = (rel_entr(dense_NC, middle) + rel_entr(given_NC, middle)).sum(axis=-1) / 2
    # Of nearly equal rows the sum may be rounded to -1e-17, whose root scipy's jensenshannon gives as NaN.
    distance = np.sqrt(divergence.clip(min=0) / np.log(2 if base == 2 else np.e))
    return float(1 - distance.mean())


def _spans(task: Task, split: EncodedSplit, dense: Predictions, predictions: Predictions) -> dict[str, float]:
    decoded = [task.decode(split, part) for part in (dense, predictions)]
    first, second = ([str(text) for text in found.predicted] for found in decoded if found is not None)
    golds = [[text] for text in first]
    return {"exact_match": best_over(exact_match, second, golds), "f1": best_over(_f1, second, golds)}


def _f1(given: str, other: str) -> float:
    return max(exact_match(given, other), token_f1(given, other))  # two empty answers are the same one
