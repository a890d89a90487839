"""Every file that is read may be damaged, foreign or of another version: one clear line, soon, in little memory."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerState

from trainflat.cli import main as cli
from trainflat.commands.claims import Claim, read_claim
from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors, read_as, save_tensors, seal, verify, write_json
from trainflat.models.stored import read_config_json
from trainflat.pruning import Masks
from trainflat.recipe import load_recipe
from trainflat.records.landscape import LineRecord, load_landscape
from trainflat.records.run import Record, Sizes, Stage
from trainflat.sharpness.store import Store
from trainflat.tasks.tables import read_table
from trainflat.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]
STAGE = Stage(
    name="dense",
    target_sparsity=0.0,
    scores={"validation": {"accuracy": 50.0}},
    sizes=Sizes(
        parameters=1, nonzero=1, encoder_sparsity=0, total_sparsity=0, dense_bytes=4, bitmask_bytes=4, packed_bytes=4
    ),
    matrices=[],
)


def record(path: Path) -> None:
    path.write_text((ROOT / "results" / "movement" / "sst2-teacher-seed0" / "record.json").read_text())


def landscape(path: Path) -> None:
    line = LineRecord(name="x", positions=[0.0, 1.0], losses=[0.1, 0.2])
    line.save(path.parent).rename(path)


def state(path: Path) -> None:
    made = TrainerState(global_step=2, max_steps=4, stateful_callbacks=[])
    made.save_to_json(str(path))


def masks(path: Path) -> None:
    Masks({"a": torch.tensor([[True, False, True]])}).save(path)


# Name of the file, what writes it, what reads it: behind a manifest too, for another version seals its own folders.
JSON_FILES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "record.json": (record, Record.load),
    "landscape-x.json": (landscape, load_landscape),
    "store.json": (lambda path: write_json(path, {"work": "w", "losses": {"a": 0.5}}), lambda path: Store(path, "w")),
    "claim.json": (
        lambda path: Claim(recipe="r", data={"train": {"sha256": "0"}}).save(path.parent),
        lambda path: read_claim(path.parent),
    ),
    "stage.json": (
        lambda path: write_json(path, STAGE.model_dump(mode="json")),
        lambda path: read_as(path, Stage, "a stage"),
    ),
    "flat.json": (
        lambda path: write_json(path, {"passes": 3, "written": [2]}),
        lambda path: checkpoints.read_flat(path.parent),
    ),
    "trainer_state.json": (state, lambda path: checkpoints._read_state(path.parent)),
    "manifest.json": (lambda path: (path.parent / "a").touch() or seal(path.parent), lambda path: verify(path.parent)),
    "config.json": (lambda path: write_json(path, {"hidden_size": 8}), lambda path: read_config_json(path.parent)),
    "rows.json": (lambda path: path.write_text('[{"text": "a", "label": 1}]'), read_table),
    "rows.jsonl": (lambda path: path.write_text('{"text": "a", "label": 1}\n'), read_table),
}
OTHER_FILES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "masks.safetensors": (masks, Masks.load),
    "weights.safetensors": (lambda path: save_tensors(path, {"a": torch.ones(2)}), load_tensors),
    "mine.yaml": (lambda path: path.write_text("task: cola\nmodel: minilm\n"), load_recipe),
}
FILES = JSON_FILES | OTHER_FILES


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 2**31)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "pipe": pipe,
    "directory": directory,
    "device": device,
    "huge": huge,
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "lists in lists": lambda path: path.write_text("[" * 100_000),
    "mappings in mappings": lambda path: path.write_text('{"a":' * 100_000),
    "no UTF-8": lambda path: path.write_bytes(b'{"a": "\xff\xfe"}'),
    "a list": lambda path: path.write_text("[[1, 2]]"),
    "a number": lambda path: path.write_text("3"),
    "aliases": lambda path: path.write_text(
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    ),
    "an executable tag": lambda path: path.write_text("!!python/object/apply:os.system [exit]"),
}
# A new store; rows may be many.
FINE = {("store.json", "missing"), ("rows.json", "huge"), ("rows.jsonl", "huge")}
WRONG: tuple[Any, ...] = (None, "x", -1, [], {}, [[]], {"a": {}}, True, 10**400, 0.5)
NOT_FINITE = ("NaN", "Infinity", "1e999")
LITERALS = (*NOT_FINITE, "1" + "0" * 400, '"\\ud800"', "[" * 2000 + "]" * 2000)


def refused(read: Callable[[Path], Any], path: Path, *, must: bool) -> None:
    """Reading ends in one line, soon, in little memory; or, unless it must not, in a value."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(path)
    except InputError as error:
        text = str(error)
        assert "\n" not in text
        assert path.name in text or path.parent.name in text
        assert len(text) < 600 + 2 * len(str(path))
    else:
        assert not must, "it was read"
    assert time.perf_counter() - started < 20  # seconds, on a machine with other work
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KB


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_of_ours_is_one_line(name: str, damage: str, tmp_path: Path) -> None:
    if (name, damage) in FINE:
        pytest.skip("that is nothing to refuse")
    write, read = FILES[name]
    write(tmp_path / name)
    read(tmp_path / name)
    DAMAGE[damage](tmp_path / name)
    refused(read, tmp_path / name, must=True)


@pytest.mark.parametrize("name", JSON_FILES)
def test_keys_and_values_of_another_version_are_one_line(name: str, tmp_path: Path) -> None:
    """Each key missing, each value of another kind, and one key more."""
    write, read = JSON_FILES[name]
    path = tmp_path / name
    write(path)
    whole = json.loads(path.read_text())
    if isinstance(whole, list):
        whole = {"text": "a", "label": 1}
    changed = [whole | {"new": 1}, *({k: v for k, v in whole.items() if k != key} for key in whole)]
    changed += [whole | {key: value} for key in whole for value in WRONG]
    for value in changed:
        path.write_text(json.dumps(value))
        refused(read, path, must=False)
    for literal in LITERALS:
        path.write_text(json.dumps(whole | {"new": "@"}).replace('"@"', literal))
        refused(read, path, must=literal not in NOT_FINITE or not name.startswith("rows"))  # rows may lack a number


@pytest.mark.parametrize(("key", "value"), [("sha256", "0"), ("format", "trainflat-masks-2"), ("shapes", "[" * 10_000)])
@pytest.mark.parametrize("of", ["value", "nothing"])
def test_metadata_of_masks(key: str, value: str, of: str, tmp_path: Path) -> None:
    path = tmp_path / "masks.safetensors"
    masks(path)
    tensors, metadata = load_tensors(path)
    metadata = {k: v for k, v in metadata.items() if k != key} | ({key: value} if of == "value" else {})
    save_tensors(path, tensors, metadata)
    refused(Masks.load, path, must=True)


@pytest.mark.parametrize("shape", [[3], [1, 4], [8, 2], [-1, -3], [0, 3], [1.5], [10**12], "x", [[1]], None])
def test_shapes_of_masks_that_do_not_fit_their_bits(shape: Any, tmp_path: Path) -> None:
    path = tmp_path / "masks.safetensors"
    masks(path)
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, metadata | {"shapes": json.dumps({"a": shape})})
    refused(Masks.load, path, must=True)


def test_unpaired_directories_beside_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-2 (copy)", "checkpoint-best", "checkpoint-", "checkpoint-02", "checkpoint-1e3"):
        (tmp_path / name).mkdir()
    assert checkpoints.newest(tmp_path) is None
    assert len(list(tmp_path.iterdir())) == 5


NAMES = {"long": "x" * 300, "deep": "x/" * 3000, "bytes": os.fsdecode(b"\xff\xfe"), "lines": "a\nb"}
COMMANDS: dict[str, list[str]] = {
    "run": ["run", "NAME"],
    "run, out": ["run", "demo-sam", "--out", "NAME"],
    "run, file": ["run", "NAME.yaml"],
    "check": ["check", "NAME"],
    "check, data": ["check", "small/stsb-imp", "--data", "NAME"],
    "report": ["report", "NAME"],
    "diagnose": ["diagnose", "NAME", "--task", "stsb"],
    "export": ["export", "NAME", "--to", "sparse"],
    "bench": ["bench", "NAME"],
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_names_that_no_file_can_have(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--out" in words and len(name) < 100:
        pytest.skip("a folder may have this name")
    monkeypatch.setattr(sys, "argv", ["trainflat", *(word.replace("NAME", name) for word in words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    [*progress, last] = capsys.readouterr().err.strip().split("\n")
    assert last.startswith("trainflat: ")
    assert all(line.startswith("[1/1] ") for line in progress), progress
    assert list(tmp_path.iterdir()) == []
