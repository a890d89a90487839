"""Looks up published figures that compare with a run.

Values: Na, Mehta and Strubell 2022 (arXiv:2205.12694v2), tables 1, 3 to 5 and 8; there also those of Chen et al. 2020
(arXiv:2007.12223), which the table calls the reference, and of Zafrir et al. 2019 (arXiv:1910.06188), the reference of
table 8. All are of BERT-base uncased.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from trainflat.records.run import Record
from trainflat.report.panels import Panel, rewind

_MODELS = {"bert-base-uncased", "google-bert/bert-base-uncased"}
_LAYERS = 12  # a model cut to fewer layers is another model
_METRICS = {"matthews": "matthews_correlation"}
_DEV = {"validation", "validation_matched"}  # a labelled "test" file is not GLUE's, whose labels are secret
_LABELS = {
    "reference": "Chen et al. 2020",
    "adam": "Na et al. 2022, Adam",
    "sam": "Na et al. 2022, SAM",
    "swa": "Na et al. 2022, SWA",
    "q8bert": "Zafrir et al. 2019, Q8BERT",
}
_SCORES, _SHARPNESS, _INT8 = "glue_squad_bert_base.csv", "sharpness.csv", "quantized_int8.csv"


@dataclass(frozen=True)
class Figure:
    """Holds a published score, or figure of flatness."""

    optimizer: str  # "adam", "sam", "swa"; "reference" for Chen et al., "q8bert"
    sparsity: float  # a share of the encoder's weights
    mean: float  # percent
    std: float | None
    source: str
    measure: str = ""  # of flatness, as records call it; "" for a score

    @property
    def label(self) -> str:
        """Returns the paper and its optimizer."""
        return _LABELS[self.optimizer]

    @property
    def beside(self) -> int:
        """Returns the offset along x, -1, 0 or 1, so that bars of one sparsity do not cover each other."""
        return {"adam": -1, "sam": 1}.get(self.optimizer, 0)


@dataclass(frozen=True)
class Rounded:
    """Holds a published dense model in float32 and int8; Q8BERT, trained with fake quantization, in int8 alone."""

    metric: str  # as records call it
    inputs: str  # how activations are rounded, as records call it
    full: Figure | None
    int8: Figure

    @property
    def label(self) -> str:
        """Returns the paper and its optimizer."""
        return self.int8.label


def published(panel: Panel) -> list[Figure]:
    """Returns published scores of the panel's task, model, metric, split and protocol: dense and at their sparsity.

    Empty where anything differs: another model or number of layers, partial data, a held-out part of the training set.
    """
    if not _same_model(panel) or panel.split not in _DEV:
        return []
    found: dict[tuple[str, str], Figure] = {}
    for row in _rows(_SCORES):
        fits = row["task"] == panel.task and row["metric"] == _metric(panel) and row["split"] == "dev"
        if fits and row["optimizer"] in _LABELS and row["setting"] in _settings(panel.records[0]):
            found.setdefault((row["optimizer"], row["setting"]), _figure(row))  # table 5 comes first, and has all
    return list(found.values())


def published_sharpness(panel: Panel) -> list[Figure]:
    """Returns published sharpness in Keskar's random subspace of the panel's task: dense and, for IMP, at its sparsity.

    Empty where model, amount of data or protocol differ, as for :func:`published`; the metric does not matter.
    """
    if not _same_model(panel) or panel.split not in _DEV:
        return []
    settings = _settings(panel.records[0])
    rows = [row for row in _rows(_SHARPNESS) if row["task"] == panel.task]
    return [
        Figure(
            optimizer=row["optimizer"],
            sparsity=int(row["sparsity_percent"]) / 100,
            mean=float(row["sharpness_mean"]),
            std=float(row["sharpness_std"]),
            source=row["source"],
            measure=f"keskar_{float(row['epsilon']):g}",
        )
        for row in rows
        if ("imp" if int(row["sparsity_percent"]) else "full") in settings
    ]


def published_int8(panel: Panel) -> list[Rounded]:
    """Returns published dense int8 models of the panel's task in their own metric, by the rules of `published`.

    The paper's metric may be another than the panel's: F1 for MRPC and QQP.
    """
    if not _same_model(panel) or panel.split not in _DEV or "full" not in _settings(panel.records[0]):
        return []
    rows = [row for row in _rows(_INT8) if row["task"] == panel.task]
    ours = {published: ours for ours, published in _METRICS.items()}
    found = [Rounded(ours.get(r["metric"], r["metric"]), "torch", _dense(r, "full"), _dense(r, "int8")) for r in rows]
    trained = [
        Rounded(found[0].metric, "static", None, Figure("q8bert", 0.0, float(r["qat_reference"]), None, r["source"]))
        for r in rows[:1]
        if r["qat_reference"]
    ]
    return found + trained


def _dense(row: dict[str, str], name: str) -> Figure:
    return Figure(row["optimizer"], 0.0, float(row[f"{name}_mean"]), float(row[f"{name}_std"]), row["source"])


def reference_sparsity(panel: Panel) -> float | None:
    """Returns the share of zeros at which the papers compare the panel's task; None for other tasks or models."""
    rows = [row for row in _rows(_SCORES) if row["task"] == panel.task and row["setting"] == "imp"]
    return int(rows[0]["sparsity_percent"]) / 100 if rows and _same_model(panel) else None


def _same_model(panel: Panel) -> bool:
    return panel.model in _MODELS and panel.layers == _LAYERS and not panel.partial


def _settings(record: Record) -> set[str]:
    """Returns the experiment's names in the papers' tables; all protocols but the ticket start with the dense model."""
    if record.protocol == "iterative":
        return {"full"} | {0: {"imp"}, None: {"standard"}}.get(rewind(record), set())
    return {"full"} if record.protocol in ("dense", "one-shot") else set()


def _metric(panel: Panel) -> str:
    return "accuracy_matched" if panel.split == "validation_matched" else _METRICS.get(panel.metric, panel.metric)


def _figure(row: dict[str, str]) -> Figure:
    std = float(row["std"]) if row["std"] else None
    return Figure(row["optimizer"], int(row["sparsity_percent"]) / 100, float(row["mean"]), std, row["source"])


@cache
def _rows(name: str) -> list[dict[str, str]]:
    text = files("trainflat.report").joinpath("reference", name).read_text(encoding="utf8")
    return list(csv.DictReader(text.splitlines()))
