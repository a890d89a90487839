"""What ``trainflat diagnose`` finds out about a fine-tuned model, as data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from trainflat.core.margins import Answers, Difference, Score, difference
from trainflat.records.base import Data, Format
from trainflat.records.run import Fingerprint, Int8

DIAGNOSIS_FILE = "diagnosis.json"


class Measured(Data):
    """One measure of sharpness, with everything that it depends on."""

    name: str  # as `trainflat list` has it
    options: dict[str, Any]
    values: dict[str, float]
    seconds: float


class Cut(Data):
    """A score after magnitude pruning at once, without any training."""

    sparsity: float  # share of the prunable weights, or of those of the one part
    score: float
    emptied: list[str] = []  # matrices of which nothing is left
    without: list[float] = []  # the score without each group of rows, for the margin: see `trainflat.core.margins`


class Sensitivity(Data):
    """The score when only one part of the model is pruned, each of its matrices on its own."""

    axis: Literal["layer", "kind"]
    part: str  # "layer 3", "query"
    cut: Cut


class Diagnosis(Data):
    """How flat one model is, how well it can be compressed, and what follows."""

    model: str
    architecture: str
    parameters: int
    weights_sha256: str
    sparsity: float  # of the prunable weights, as given
    task: str
    split: str
    metric: str
    positive: str = ""  # the class that F1 is of, of two
    score: float  # on the whole split, in percent
    sampled_score: float  # on the rows that the cuts are scored on; differences to them are taken from here
    sampled_rows: int
    flatness_rows: int  # of the training set
    seconds: float
    data: dict[str, Fingerprint]
    flatness: list[Measured]
    int8: Int8  # scored on the whole split, as ``score`` is
    one_shot: list[Cut]
    sensitivity: list[Sensitivity]
    environment: dict[str, Any]
    seed: int
    answers: Answers | None = None  # of the sampled rows
    without: dict[str, list[float]] = {}  # as of a cut: "whole" and "int8" on the whole split, "sampled"

    @property
    def partial(self) -> bool:
        """Whether some split holds only a part of the official rows."""
        return any(one.partial for one in self.data.values())

    @property
    def int8_loss(self) -> Difference:
        """Returns what rounding to int8 costs, in points of the whole split's score."""
        rows = self.data[self.split].rows
        before = self._scored(self.score, rows, self.without.get("whole", []))
        after = self.int8.scores[self.split][self.metric]
        return difference(before, self._scored(after, rows, self.without.get("int8", [])))

    def lost(self, cut: Cut) -> Difference:
        """Returns what a cut costs, in points of the score on the sampled rows."""
        return difference(self._sampled(), self._cut(cut))

    def worse(self, cut: Cut, other: Cut) -> Difference:
        """Returns how many points more one cut costs than another."""
        return difference(self._cut(other), self._cut(cut))

    def _sampled(self) -> Score:
        return self._scored(self.sampled_score, self.sampled_rows, self.without.get("sampled", []))

    def _cut(self, cut: Cut) -> Score:
        return self._scored(cut.score, self.sampled_rows, cut.without)

    def _scored(self, value: float, rows: int, without: list[float]) -> Score:
        return Score(value=value, rows=rows, metric=self.metric, without=without)

    def kept_to(self, loss: float) -> float:
        """Returns the highest sparsity of the one-shot curve up to which no cut costs more than ``loss`` points."""
        highest = self.sparsity
        for cut in self.one_shot:
            if cut.score < self.sampled_score - loss:
                break
            highest = cut.sparsity
        return highest


class Diagnoses(Data):
    """The diagnoses of one call, in the order in which they are shown, and what follows from them."""

    models: list[Diagnosis]
    advice: list[str]


DIAGNOSES = Format("diagnosis", Diagnoses)


def save_diagnoses(diagnoses: Sequence[Diagnosis], advice: Sequence[str], folder: Path) -> Path:
    """Writes ``diagnosis.json``, atomically; ``advice`` is what follows, in words.

    Raises:
        InputError: it cannot be written.
    """
    return DIAGNOSES.write(folder / DIAGNOSIS_FILE, Diagnoses(models=list(diagnoses), advice=list(advice)))
