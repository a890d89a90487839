"""Exports a model, and keeps the file only if it answers real text as the model does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from trainflat.core.errors import InputError, UnknownName, is_fault
from trainflat.core.files import write_json
from trainflat.core.formatting import plural
from trainflat.core.margins import difference
from trainflat.core.rng import derive_seed
from trainflat.core.settings import Settings
from trainflat.evaluation import Agreement, compare_answers, main_score, predictions_of
from trainflat.export import EXPORTERS, Exporter, Source, copy_tokenizer, new_folder
from trainflat.export.loading import load
from trainflat.models import (
    Encoder,
    fit_inputs,
    load_config,
    load_encoder,
    max_positions,
    meet,
    output_names,
    read_tokenizer,
)
from trainflat.models.checks import check_tokenizer
from trainflat.models.classes import class_names
from trainflat.quantization import Int8Module
from trainflat.recipe import load_recipe, named_sections
from trainflat.tasks.base import EncodedSplit, Task
from trainflat.tasks.stdlib_docs import sentences_of

CHECKED = "export.json"
_BATCHES = (1, 7, 32)  # rows of the batches that are compared
_LONGEST = 512  # tokens
_AGREEMENT = 0.9  # of the predictions, where values are rounded
_CALIBRATION = ("unittest", "email", "http", "json")
_MODULES = ("statistics", "textwrap", "zipfile", "calendar")  # of the standard library, with sentences enough
_WEIGHTS = ("*.safetensors", *(f"model.{ending}" for ending in ("pt2", "onnx", "xml", "bin")))


@dataclass(frozen=True)
class Checked:
    """Holds how an export differs from its model.

    Attributes:
        to: The format.
        options: Of the format.
        rows: Texts that both answered.
        difference: Largest absolute difference of two logits.
        agreement: Share of the rows with the same prediction, as `Agreement` counts them.
        source_bytes: Weights of the model's folder.
        bytes: Weights of the export.
        metric: Of the task, where one was given.
        source_score: In percent.
        score: In percent.
        margin: Between which points the score is above the model's in 95 of 100 draws of the rows.
        remark: Where the answers of the file are no better than blind ones.
        notes: Of the task, on its rows.
    """

    to: str
    options: Mapping[str, Any]
    rows: int
    difference: float
    agreement: float
    source_bytes: int
    bytes: int
    metric: str | None = None
    source_score: float | None = None
    score: float | None = None
    margin: tuple[float, float] | None = None
    remark: str = ""
    notes: tuple[str, ...] = ()

    def sentences(self) -> Iterator[str]:
        """Yields the sentences that the command line prints."""
        yield from (f"note: {note}" for note in self.notes)
        yield (
            f"{plural(self.rows, 'text')}: logits differ by {self.difference:.1e} at most, "
            f"{self.agreement:.1%} of the predictions are the same."
        )
        if self.metric is not None:
            low, high = self.margin or (0.0, 0.0)
            told = f"between {low:+z.2f} and {high:+z.2f} points" if low > 0 or high < 0 else "not significant"
            yield f"{self.metric}: {self.score:z.2f}, the model has {self.source_score:z.2f} ({told})."
        if self.remark:
            yield f"{self.metric}: {self.remark}."
        yield f"{self.bytes / 1e6:.2f} MB, the model has {self.source_bytes / 1e6:.2f} MB."


def export(
    folder: str | Path,
    to: str,
    out: str | Path,
    options: Sequence[str] | Mapping[str, Any] = (),
    *,
    task: str | Mapping[str, Any] | None = None,
    data: Path | None = None,
    seed: int = 0,
) -> Checked:
    """Writes a model in another format; the folder appears only if it answers as the model does.

    Args:
        folder: Of the model, with its tokenizer.
        to: A name in ``EXPORTERS``.
        out: The new folder; ``export.json`` in it holds what was compared.
        options: Of the format, by name or as ``key=value``.
        task: Its name, or as in a recipe. Both are also scored on its evaluation split.
        data: Folder with the task's files.
        seed: That of the run, where it held out rows: the same ones are scored.

    Raises:
        InputError: the model or an option cannot be used, a package is missing, or the file answers differently: a
            logit is off by more than the format's tolerance or, where values are rounded, more than one prediction in
            ten changed.
        DamagedFile: a file of the model is not what was written.
    """
    settings = _settings(to, options)
    exporter: Exporter = settings.build()
    exporter.check_installed()
    learned = None if task is None else as_named(task_for(folder, task, data, seed), Path(folder))
    source = _source(Path(folder), learned)
    rows = None if learned is None else _Rows.of(learned, source)
    source = replace(source, texts=_texts(source, rows, exporter.samples))
    if not exporter.keeps_type:
        source.model.float()
    with new_folder(Path(out)) as place:
        source.model.config.save_pretrained(place)
        copy_tokenizer(source.folder, place)
        exporter.write(source, place)
        checked = _compare(exporter, source, place, settings, rows)
        write_json(place / CHECKED, asdict(checked))
    return checked


def _settings(to: str, options: Sequence[str] | Mapping[str, Any]) -> Settings:
    given = options if isinstance(options, Mapping) else named_sections(options, format=(EXPORTERS, to))["format"]
    try:
        return EXPORTERS.read({**(given or {}), "name": to})
    except UnknownName:
        raise
    except InputError as error:
        raise InputError(f"--to {to}: {error}.") from error


def task_for(model: str | Path, task: str | Mapping[str, Any], data: Path | None, seed: int) -> Task:
    """Builds a task for models like this one, with the rows that a run with this seed holds out.

    Raises:
        InputError: there is no such task, or its data cannot be read.
    """
    settings = load_recipe({"task": task, "model": str(model)}).task
    learned: Task = settings.build(data=data, seed=derive_seed(seed, "rows"))
    return learned


def as_named(task: Task, folder: Path) -> Task:
    """Returns the task with the model's classes, so that what is written keeps the model's names and order."""
    try:
        config = load_config(folder)
    except Exception:  # reading the model says better what is wrong
        return task
    return task.in_order(class_names(config)) if task.head.kind == "classification" else task


def _source(folder: Path, task: Task | None) -> Source:
    model = load(folder)  # refuses what is damaged
    if any(isinstance(module, Int8Module) for module in model.modules()):
        raise InputError(f"{folder} is int8 already. Export the model that it was made from.")
    output_names(model)  # without answers there is nothing by which to check the file
    if task is not None:
        encoder = load_encoder(str(folder), task.head, fine_tuned=True)
        meet(encoder)
        return Source(folder, encoder.model.eval(), encoder.tokenizer)
    try:
        tokenizer = read_tokenizer(folder)
    except BaseException as error:  # of any kind
        if not is_fault(error):
            raise
        raise InputError(f"{folder} has no tokenizer that can be read. Put its files beside the model.") from error
    check_tokenizer(tokenizer, model, str(folder))
    fit_inputs(model, tokenizer)
    meet(Encoder(model, tokenizer, str(folder), min(max_positions(model) or _LONGEST, _LONGEST)))
    return Source(folder, model, tokenizer)


@dataclass(frozen=True)
class _Rows:
    """Holds a task's encoded rows: those to train on and those to score."""

    task: Task
    training: EncodedSplit
    scored: EncodedSplit

    @classmethod
    def of(cls, task: Task, source: Source) -> Self:
        training, evaluation = task.encode(source.tokenizer, row_length(task, max_positions(source.model)))
        return cls(task, training, evaluation[task.split])


def _texts(source: Source, rows: _Rows | None, count: int) -> list[Mapping[str, Tensor]]:
    """Returns single rows [1, T] of the task's training split, drawn by a fixed seed, else sentences of no check."""
    if rows is None:
        length = min(max_positions(source.model) or _LONGEST, _LONGEST)
        sentences = sentences_of(*_CALIBRATION)[:count] if count else []
        return [_encode(source, [sentence], length) for sentence in sentences]
    return [{name: torch.tensor([row[name]]) for name in source.inputs} for row in _draw(rows.training, count)]


def _compare(exporter: Exporter, source: Source, place: Path, settings: Settings, rows: _Rows | None) -> Checked:
    written = exporter.open(place)
    found = compare_answers(source.model, written, _batches(source, rows), foreign=rows is None)
    _refuse_difference(exporter, found, settings.name)
    return Checked(
        to=settings.name,
        options=settings.dump(),
        rows=found.rows,
        difference=found.difference,
        agreement=found.share,
        source_bytes=weight_bytes(source.folder),
        bytes=weight_bytes(place),
        **_scores(source, written, rows),
    )


def _scores(source: Source, written: Any, rows: _Rows | None) -> dict[str, Any]:
    """Scores the model and its export on the task, where one is given."""
    if rows is None:
        return {}
    (before, _), (after, answers) = [
        main_score(rows.task, rows.scored, predictions_of(one, rows.scored, source.tokenizer))
        for one in (source.model, written)
    ]
    apart = difference(after, before)
    return {
        "metric": rows.task.score_name,
        "notes": rows.task.notes,
        "source_score": before.value,
        "score": after.value,
        "margin": (apart.low, apart.high),
        "remark": answers.remark() if answers else "",
    }


def _refuse_difference(exporter: Exporter, found: Agreement, to: str) -> None:
    if found.difference > exporter.tolerance * max(found.scale, 1.0):
        raise InputError(
            f"the {to} file answers differently: logits up to {found.scale:.1e} are off by {found.difference:.1e}. "
            "It was not kept. Choose another format."
        )
    if found.share < _AGREEMENT:
        raise InputError(
            f"the {to} file answers differently: only {found.share:.1%} of the predictions are the same. "
            "It was not kept. Choose options that round less."
        )


def _batches(source: Source, rows: _Rows | None) -> Iterator[dict[str, Tensor]]:
    """Yields padded batches of real text in several shapes, of the task where one is given.

    The last batch is as long as the model takes.
    """
    length = min(max_positions(source.model) or _LONGEST, _LONGEST)
    sentences = sentences_of(*_MODULES)
    drawn = None if rows is None else _draw(rows.scored, sum(_BATCHES))
    start = 0
    for end in accumulate(_BATCHES):
        if drawn is None:
            yield _encode(source, sentences[start:end], length)
        elif drawn[start:end]:
            columns = {name: [row[name] for row in drawn[start:end]] for name in source.inputs}
            yield dict(source.tokenizer.pad(columns, return_tensors="pt"))
        start = end
    yield _encode(source, [" ".join(sentences), sentences[0]], length)


def _draw(split: EncodedSplit, count: int) -> list[dict[str, Any]]:
    """Draws some rows, the same ones each time."""
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count]
    return [split[index] for index in drawn.tolist()]


def _encode(source: Source, texts: list[str], length: int) -> dict[str, Tensor]:
    batch = source.tokenizer(texts, truncation=True, max_length=length, padding=True, return_tensors="pt")
    return {name: batch[name] for name in source.inputs}


def row_length(task: Task, positions: int | None) -> int:
    """Returns the tokens to which rows are cut where an export is scored, by the positions of its model."""
    return min(positions or _LONGEST, 384 if task.head.kind == "spans" else 128)


def weight_bytes(folder: Path) -> int:
    """Returns the bytes of the files in a folder that hold a model's weights."""
    masks = "masks.safetensors"  # of a stage: they are no part of the model
    files = {path for pattern in _WEIGHTS for path in folder.glob(pattern)}
    return sum(path.stat().st_size for path in files if path.name != masks)
