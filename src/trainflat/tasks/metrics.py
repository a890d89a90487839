"""Computes scores as the papers report them: in percent, defined for every finite prediction."""

import warnings
from collections.abc import Callable, Iterable

import numpy as np

from trainflat.core.errors import TrainingDiverged

Metric = Callable[[np.ndarray, np.ndarray], float]  # gold [N], predicted [N] -> percent


def accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the share of rows whose class is right."""
    return 100 * float(np.mean(gold == predicted))


def f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the F1 of class 1."""
    from sklearn.metrics import f1_score

    return 100 * float(f1_score(gold, predicted, zero_division=0))


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the mean F1 of the classes that occur."""
    from sklearn.metrics import f1_score

    return 100 * float(f1_score(gold, predicted, average="macro", zero_division=0))


def matthews(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the Matthews correlation; 0 if all predictions are one class."""
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn warns where gold and predictions are one and the same class; the papers' scores have that at 0.
    return 100 * float(matthews_corrcoef(gold, predicted)) if len(np.union1d(gold, predicted)) > 1 else 0.0


def pearson(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the Pearson correlation; 0 if one side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, gold, predicted)


def spearman(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the Spearman rank correlation; 0 if one side is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, gold, predicted)


def _correlation(function: Callable[..., tuple[float, float]], gold: np.ndarray, predicted: np.ndarray) -> float:
    if len(gold) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # constant input: an untrained or collapsed model, whose correlation counts as 0
        value = function(gold, predicted)[0]
    return 100 * float(np.nan_to_num(value, nan=0.0))


CLASSIFICATION: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "matthews": matthews}
REGRESSION: dict[str, Metric] = {"pearson": pearson, "spearman": spearman}
METRICS: dict[str, Metric] = {**CLASSIFICATION, **REGRESSION}


def evaluate(
    names: Iterable[str], gold: np.ndarray, predicted: np.ndarray, *, classes: int, positive: int = 1
) -> dict[str, float]:
    """Computes the named metrics; "f1" is of class ``positive``, or macro-averaged over more than two classes."""

    def score(name: str) -> float:
        if name != "f1":
            return METRICS[name](gold, predicted)
        return macro_f1(gold, predicted) if classes > 2 else f1(gold == positive, predicted == positive)

    return {name: score(name) for name in names}


def check_finite(split: str, *predictions: np.ndarray) -> None:
    """Raises TrainingDiverged if a prediction is not finite."""
    if not all(np.isfinite(part).all() for part in predictions):
        raise TrainingDiverged(f"predictions on {split} are not numbers (NaN or infinite). Lower the learning rate.")
