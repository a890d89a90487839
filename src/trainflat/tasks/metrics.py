"""Computes scores as the papers report them: in percent, defined for every finite prediction."""

import warnings
from collections.abc import Callable, Iterable

import numpy as np

from trainflat.core.errors import TrainingDiverged

Metric = Callable[[np.ndarray, np.ndarray], float]  # targets [N], predictions [N] -> percent

# In standard deviations of the targets. A constant regression model predicts numbers that differ in their last float32
# digits, because the padding of a batch changes the order of summation (about 1e-6).
_SAME = 1e-4


def accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the share of rows whose predicted class is right."""
    return 100 * float(np.mean(gold == predicted))


def f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the F1 of class 1; 0 if no row has it and none is predicted to."""
    from sklearn.metrics import f1_score

    return 100 * float(f1_score(gold, predicted, zero_division=0))


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the unweighted mean F1 of the classes that occur among targets or predictions."""
    from sklearn.metrics import f1_score

    return 100 * float(f1_score(gold, predicted, average="macro", zero_division=0))


def matthews(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the Matthews correlation coefficient; 0 if all predictions are one class."""
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn warns where targets and predictions are all one class (0 / 0); the GLUE papers count that as 0.
    return 100 * float(matthews_corrcoef(gold, predicted)) if len(np.union1d(gold, predicted)) > 1 else 0.0


def pearson(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the Pearson correlation; 0 if either side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, gold, predicted)


def spearman(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the Spearman rank correlation; 0 if either side is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, gold, predicted)


def is_constant(gold: np.ndarray, predicted: np.ndarray) -> bool:
    """Returns whether predictions of a regression are equal up to rounding, compared with the spread of the targets."""
    return bool(np.ptp(predicted) <= _SAME * np.std(gold))


def _correlation(function: Callable[..., tuple[float, float]], gold: np.ndarray, predicted: np.ndarray) -> float:
    # Without the second check a collapsed model would be scored by its rounding noise: any value from -100 to 100.
    if len(gold) < 2 or is_constant(gold, predicted):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant targets, whose correlation (NaN) counts as 0
        value = function(gold, predicted)[0]
    return 100 * float(np.nan_to_num(value, nan=0.0))


CLASSIFICATION: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "matthews": matthews}
REGRESSION: dict[str, Metric] = {"pearson": pearson, "spearman": spearman}
METRICS: dict[str, Metric] = {**CLASSIFICATION, **REGRESSION}


def evaluate(
    names: Iterable[str], gold: np.ndarray, predicted: np.ndarray, *, classes: int, positive: int = 1
) -> dict[str, float]:
    """Computes metrics by name; "f1" is the F1 of class ``positive``, or the macro F1 of more than two classes."""

    def score(name: str) -> float:
        if name != "f1":
            return METRICS[name](gold, predicted)
        # By the number of classes of the task, not of those that occur, which scikit-learn would go by.
        return macro_f1(gold, predicted) if classes > 2 else f1(gold == positive, predicted == positive)

    return {name: score(name) for name in names}


def check_finite(split: str, *predictions: np.ndarray) -> None:
    """Checks that all predictions are finite.

    Raises:
        TrainingDiverged: a prediction is NaN or infinite.
    """
    if not all(np.isfinite(part).all() for part in predictions):
        raise TrainingDiverged(f"predictions on {split} are not numbers (NaN or infinite). Lower the learning rate.")
