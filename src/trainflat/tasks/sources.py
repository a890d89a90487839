"""Finds the official data sets: in a folder, in TRAINFLAT_DATA, or on the hub."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath

from trainflat.core.errors import InputError, one_line
from trainflat.core.hub import cache_alone, hub_answers, why_silent
from trainflat.tasks.opening import unpacked_name
from trainflat.tasks.rows import Rows, join
from trainflat.tasks.tables import READERS, Columns, Table, read_table

VARIABLE = "TRAINFLAT_DATA"


@dataclass(frozen=True)
class Source:
    """Locates and reads one official data set.

    Attributes:
        task: Name of the task and of its folder.
        hub: Repository on the hub, such as ``"nyu-mll/glue"``.
        config: Configuration in that repository, if it has several.
        sizes: Official number of rows by split; a split with another number is marked as partial.
    """

    task: str
    hub: str
    config: str | None
    sizes: dict[str, int]

    def rows(self, splits: str, data: Path | None, parse: Callable[[Table, bool], Rows]) -> Rows:
        """Reads a split, or several joined by ``+``; ``parse`` takes a table and whether official rows are missing."""
        return join([parse(*self.read(split, data)) for split in splits.split("+")])

    def read(self, split: str, data: Path | None = None) -> tuple[Table, bool]:
        """Reads the rows of a split; returns also whether some of the official rows are missing.

        Args:
            split: Name such as ``"train"`` or ``"train_partial"``; never replaced by another one.
            data: Folder given by ``--data``; by default TRAINFLAT_DATA, else the hub.

        Raises:
            InputError: the split is not there or cannot be read.
        """
        try:
            folder = self._root(data)
            table = _from_hub(self, split) if folder is None else self._from_folder(folder, split)
        except OSError as error:
            place = f"{error.filename!s:.200}"
            raise InputError(f"{place} cannot be read: {error.strerror}. Check the folder of --data.") from error
        return table, len(table) != self.sizes.get(split)

    def _root(self, data: Path | None) -> Path | None:
        variable = os.environ.get(VARIABLE)
        folder, origin = (data, "--data") if data is not None else (Path(variable or ""), VARIABLE)
        if data is None and not variable:
            return None
        if folder is None or not folder.is_dir():
            raise InputError(f"{origin} names {folder}, which is not a folder. Give the folder that holds {self.task}.")
        return folder

    def _from_folder(self, root: Path, split: str) -> Table:
        folder, splits = self._locate(root)
        if split not in splits:  # X_partial is not taken instead: its scores do not compare with published ones
            raise InputError(_missing(self.task, split, folder, splits))
        paths = sorted(splits[split])
        if len(paths) > 1 and any(PurePath(unpacked_name(path)).stem == split for path in paths):
            there = ", ".join(path.name for path in paths)
            raise InputError(f"{folder} has the split {split} more than once ({there}). Keep one of them.")
        tables = [read_table(path) for path in paths]
        if len(tables) == 1:
            return tables[0]
        columns: Columns = {name: [v for table in tables for v in table.column(name)] for name in tables[0].columns}
        return Table(f"{folder}/{split}-*", columns, f"file:{split}")

    def _locate(self, root: Path) -> tuple[Path, dict[str, list[Path]]]:
        # A clone from the hub keeps the only configuration of SQuAD in "plain_text".
        for folder in (root / "glue" / self.task, root / self.task, root / self.task / "plain_text", root):
            splits = _splits(folder) if folder.is_dir() else {}
            if splits and (folder != root or any(name.startswith(("train", "validation")) for name in splits)):
                return folder, splits
        kinds = ", ".join(suffix.removeprefix(".") for suffix in READERS)
        raise InputError(
            f"{root} has no {self.task}: neither {self.task}/ nor glue/{self.task}/ is there with train and validation "
            f"files ({kinds}). Give the folder that holds {self.task}."
        )


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Lists the data files of a folder by split; ``train-00000-of-00002.parquet`` is a part of ``train``."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        inside = PurePath(unpacked_name(path))  # train.csv of train.csv.gz
        if inside.suffix.lower() in READERS and path.is_file():
            name, _, part = inside.stem.partition("-")
            splits.setdefault(name if "-of-" in part else inside.stem, []).append(path)
    return splits


def _missing(task: str, split: str, folder: Path, splits: dict[str, list[Path]]) -> str:
    there = f"{folder} has no split {split!r} of {task} (there: {', '.join(splits)})."
    partial = f"{split}_partial"
    if partial not in splits:
        return f"{there} Name one of those, or add the file."
    option = "train" if split.startswith("train") else "evaluate"
    return (
        f"{there} Only some of its rows are there: ask for them with the task option `{option}: {partial}`; "
        "such scores cannot be compared with published ones."
    )


def _from_hub(source: Source, split: str) -> Table:
    place = "/".join(part for part in (source.hub, source.config) if part)
    try:
        from datasets import load_dataset

        # Its client would retry a silent hub for half a minute before it looks into the cache.
        with nullcontext() if hub_answers() else cache_alone():
            columns = load_dataset(source.hub, source.config, split=split).to_dict()
    except ImportError as error:
        raise InputError(
            f"{source.task} would come from the hub ({place}), but the package `datasets` is not installed. "
            f"Install trainflat[data], or give a folder with --data DIR."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = "" if hub_answers() else f"{why_silent()}; from its cache: "
        raise InputError(
            f"{source.task} ({split}) cannot be fetched from the hub: {reason}{one_line(error, 200)}. "
            "Give a folder with --data DIR."
        ) from error
    return Table(f"{place} ({split})", dict(columns), f"hub:{place}")
