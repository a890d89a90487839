"""Computes exact match and F1 as the official script of SQuAD v1.1 (Rajpurkar et al., 2016, arXiv:1606.05250)."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(answer: str) -> str:
    """Lower-cases a text and removes punctuation, articles and superfluous spaces, in this order.

    Example:
        >>> normalize("The  U.S. dollar")
        'us dollar'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """Returns 1 if both are equal after :func:`normalize`, else 0."""
    return float(normalize(prediction) == normalize(gold))


@lru_cache(maxsize=2**17)  # the jackknife of confidence margins scores every pair once per left-out group
def token_f1(prediction: str, gold: str) -> float:
    """Computes the F1 of the two bags of tokens; 0 if both are empty, where the script of v2 gives 1."""
    predicted, expected = normalize(prediction).split(), normalize(gold).split()
    same = sum((Counter(predicted) & Counter(expected)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(expected)
    return 2 * precision * recall / (precision + recall)


def best_over(metric: Callable[[str, str], float], predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    """Averages over questions the metric's maximum over the gold answers of a question, in percent."""
    best = [max(metric(p, gold) for gold in answers) for p, answers in zip(predictions, golds, strict=True)]
    return 100 * sum(best) / len(best)
