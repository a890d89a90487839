"""`trainflat bench` from the command line, on tiny models by all backends, and what it refuses."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BertForSequenceClassification

from tests.support.families import config, write
from tests.support.marks import quick
from tests.support.runs import own_files
from trainflat.cli.main import main
from trainflat.commands.bench import compare as comparing
from trainflat.commands.bench import variants
from trainflat.commands.bench.remote import Remote, Rows
from trainflat.commands.bench.scores import read_task
from trainflat.commands.bench.variants import Opened
from trainflat.commands.bench.worker import Worker
from trainflat.core import timing
from trainflat.core.errors import DamagedFile, InputError, UnknownName
from trainflat.core.progress import Progress
from trainflat.evaluation import score
from trainflat.export.loading import load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options = {"num_hidden_layers": 1, "initializer_range": 0.5, "max_position_embeddings": 160}
    return write(tmp_path_factory.mktemp("bench") / "dense", BertForSequenceClassification(config("Bert", **options)))


class Here(Remote):
    """The worker in this process, which has imported torch already; its messages still pass as JSON."""

    def __init__(self, name: str, engine: str, path: Path) -> None:
        self.name, self.engine, self.path, self.worker = name, engine, path, Worker()

    def _ask(self, what: str, method: str, **arguments: Any) -> Any:
        return json.loads(json.dumps(getattr(self.worker, method)(**json.loads(json.dumps(arguments)))))


@pytest.fixture
def worker(model: Path) -> Remote:
    remote = Here("A", "torch", model)
    remote.open(1)
    return remote


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SHORTEST_SAMPLE", 0.005)
    monkeypatch.setattr(comparing, "_PATIENCE", 0.0)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "argv", ["trainflat", "bench", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.long
@pytest.mark.parametrize("backends", quick([("torch", "onnx"), ("torch", "onnx", "openvino")], ("torch", "onnx")))
def test_tiny_models_by_all_backends(
    backends: tuple[str, ...],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = ("--batch", "1,2", "--length", "8", "--threads", "1", "--rounds", 6)
    which = (model, "--backend", ",".join(backends), "--out", tmp_path / "out")
    own = [f"--set={key}={value}" for key, value in own_files(tmp_path).items() if key != "name"]
    code, out, err = run(monkeypatch, capsys, *which, *sizes, "--task", "files", *own)
    assert code == 0, err
    exporting = [f"exporting dense to {name}" for name in backends[1:]]
    for text in (*exporting, f"scoring on files: {len(backends)} steps", "timing"):
        assert text in err
    for text in ("1 × 8 tokens, 1 thread", "2 × 8 tokens, 1 thread", "Speed-up", "over dense, torch", "bench.json"):
        assert text in out
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    names = [(one["model"], one["backend"]) for one in found["variants"]]
    assert names == [("dense", name) for name in backends]
    sizes_on_disk = [one["bytes"] for one in found["variants"]]
    assert sizes_on_disk[0] == (model / "model.safetensors").stat().st_size
    assert all(one["peak_bytes"] > 2e7 for one in found["variants"])
    # One model, three libraries: no prediction turns on the last bits.
    assert len({round(one["score"], 6) for one in found["variants"]}) == 1
    assert [len(timing["samples"]) for cell in found["cells"] for timing in cell["timings"]] == [6] * 2 * len(backends)
    assert [timing["speedup"] is None for timing in found["cells"][0]["timings"]] == [
        not n for n in range(len(backends))
    ]
    assert found["environment"]["onnxruntime"] != "not installed" and found["metric"] == "accuracy"
    picture = np.asarray(Image.open(tmp_path / "out" / "bench.png").convert("RGB"))
    assert picture.std() > 10 and (tmp_path / "out" / "bench.svg").stat().st_size > 10_000


class Recording(Remote):
    """Answers at once, and tells what was asked of whom."""

    asked: ClassVar[list[tuple[str, str, Any]]] = []

    def __init__(self, name: str, engine: str, path: Path) -> None:
        self.name = name
        self.process = type("Process", (), {"pid": 0})()
        self.asked.append((name, "start", None))

    def __exit__(self, *_: object) -> None:
        self.asked.append((self.name, "end", None))

    def open(self, threads: int) -> None:
        self.asked.append((self.name, "open", threads))

    def hold(self, rows: Rows) -> None:
        self.asked.append((self.name, "hold", {name: each.tolist() for name, each in rows.items()}))

    def time(self, calls: int) -> float:
        self.asked.append((self.name, "time", calls))
        return 0.001 * calls

    def peak_bytes(self) -> int | None:
        return 5


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """What a comparison asks of its processes."""
    Recording.asked = []
    monkeypatch.setattr(Opened, "start", lambda self: Recording(self.name, self.engine, self.path))
    monkeypatch.setattr(timing, "_ticks_of", lambda process: 0)
    return Recording.asked


def test_all_get_the_same_tokens_and_threads_in_turn(model: Path, asked: list[tuple[str, str, Any]]) -> None:
    found = comparing.compare([model, model, model], batches=[1, 3], lengths=[4, 9], threads=[1], rounds=6)
    names = [one.name for one in found.variants]
    assert names == ["dense (1), torch", "dense (2), torch", "dense (3), torch"]
    held = {name: [rows for who, what, rows in asked if (who, what) == (name, "hold")] for name in names}
    assert held[names[0]] == held[names[1]] == held[names[2]] and len(held[names[0]]) == 5
    shapes = [np.array(rows["input_ids"]).shape for rows in held[names[0]]]
    assert shapes == [(1, 9), (1, 4), (1, 9), (3, 4), (3, 9)]
    assert all(np.array(rows["attention_mask"]).all() for rows in held[names[0]])
    assert np.array(held[names[0]][-1]["input_ids"]).max() < load(model).config.vocab_size
    assert [(who, n) for who, what, n in asked if what == "open"] == [(name, 1) for name in names]
    # The last size: each is warmed up, then every round begins with another.
    last = max(n for n, (_, what, _) in enumerate(asked) if what == "hold")
    order = [names.index(who) for who, what, _ in asked[last:] if what == "time"]
    assert order[-18:] == [0, 1, 2, 1, 2, 0, 2, 0, 1] * 2
    assert set(order[:-18]) == {0, 1, 2}
    assert [what for _, what, _ in asked[-3:]] == ["end"] * 3
    assert [one.peak_bytes for one in found.variants] == [5, 5, 5]


def test_equal_times_are_not_told_apart(model: Path, asked: list[tuple[str, str, Any]]) -> None:
    found = comparing.compare([model, model], rounds=7)
    speedup = found.cells[0].timings[1].speedup
    assert speedup is not None and (speedup.low, speedup.value, speedup.high) == (1.0, None, 1.0)


def test_processes_end_when_one_fails(model: Path, asked: list[tuple[str, str, Any]], monkeypatch: Any) -> None:
    def fail(self: Recording, calls: int) -> float:
        raise InputError("no")

    monkeypatch.setattr(Recording, "time", fail)
    with pytest.raises(InputError, match="no"):
        comparing.compare([model, model])
    assert [what for _, what, _ in asked].count("end") == 2


def test_tokens_are_the_same_in_every_call() -> None:
    one, other = comparing.tokens(3, 5, 20), comparing.tokens(3, 5, 20)
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    assert one["input_ids"].shape == (3, 5) and set(np.unique(one["input_ids"])) <= set(range(20))


def test_the_score_is_that_of_the_model(model: Path, worker: Remote, tmp_path: Path) -> None:
    learned = read_task(own_files(tmp_path), model, None)
    found = learned.score(Opened("dense", "torch", "torch", model, model), worker)
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), load(model)
    split = learned.task.encode(tokenizer, loaded.config.max_position_embeddings)[1][learned.task.split]
    assert found["score"] == score(learned.task, loaded, split, tokenizer)[learned.task.metric]


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (("--backend", "onx"), ("no backend is called 'onx'", "Did you mean 'onnx'?")),
        (("--batch", "0"), ("--batch takes whole numbers of at least 1", "'0'")),
        (("--length", "8,x"), ("--length takes whole numbers", "'8,x'")),
        (("--threads", "4096"), ("--threads 4096: this machine has",)),
        (("--rounds", "0"), ("--rounds takes numbers of at least 1, got 0",)),
        (("--length", "100000"), ("--length 100000: dense has positions for",)),
        (("--task", "stdlib"), ("no task is called 'stdlib'",)),
        (("--task", "cola", "--data", "nowhere"), ("nowhere",)),
    ],
)
def test_refusals(
    *,
    arguments: tuple[str, ...],
    pieces: tuple[str, ...],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(monkeypatch, capsys, model, "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and list(tmp_path.iterdir()) == []
    for piece in pieces:
        assert piece in err


def test_files_that_no_backend_runs(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a.onnx, onnx cannot be opened: .*"):  # by torch, it need not be told
        comparing.compare([tmp_path / "a.onnx"])
    with pytest.raises(InputError, match=r"a.txt is no model .* .pt2, .onnx, .xml"):
        comparing.compare([tmp_path / "a.txt"])
    with pytest.raises(InputError, match="there is no model"):
        comparing.compare([tmp_path / "nothing"])
    with pytest.raises(InputError, match=r"a.onnx, onnx cannot be opened: .*"):
        comparing.compare([tmp_path / "a.onnx"], backends=["onnx"])


class Listening(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_file_is_left_out_by_backends_that_cannot_run_it(
    model: Path, tmp_path: Path, asked: list[tuple[str, str, Any]]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"12345")
    (tmp_path / "model.onnx.data").write_bytes(b"123")
    (tmp_path / "model.pt2").write_bytes(b"1")
    files, watcher = [tmp_path / "model.onnx"], Listening()
    backends = ["torch", "onnx", "onnx-int8", "openvino"]
    found = comparing.compare(files, backends=backends, rounds=1, progress=watcher)
    assert [(one.backend, one.bytes) for one in found.variants] == [("onnx", 8), ("openvino", 8)]
    assert watcher.said == ["model.onnx is not run by torch, and left out there"]


@pytest.mark.parametrize(
    ("file", "engine"), [("model.onnx", "onnx"), ("model.xml", "openvino"), ("model.pt2", "torch")]
)
@pytest.mark.parametrize("backends", [["torch"], ["int8", "torch"]])
def test_a_file_tells_who_runs_it(
    file: str, engine: str, backends: list[str], tmp_path: Path, asked: list[tuple[str, str, Any]]
) -> None:
    (tmp_path / file).write_bytes(b"12345")
    found = comparing.compare([tmp_path / file], backends=backends, rounds=1)
    assert [one.backend for one in found.variants] == [engine]


def test_a_backend_whose_export_is_refused_is_left_out(
    model: Path, asked: list[tuple[str, str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    error, watcher = InputError("the int8 file answers differently."), Listening()
    monkeypatch.setattr(variants, "export", refuse)
    found = comparing.compare([model], backends=["int8", "torch"], rounds=1, progress=watcher)
    assert [one.backend for one in found.variants] == ["torch"] and found.cells[0].timings[0].speedup is None
    assert watcher.said[-1] == "dense is left out of int8: the int8 file answers differently."
    with pytest.raises(InputError, match="answers differently"):
        comparing.compare([model], backends=["int8"])
    error = DamagedFile("the model is damaged.")
    with pytest.raises(DamagedFile):
        comparing.compare([model], backends=["int8", "torch"])


def test_another_head_is_refused(model: Path, worker: Remote, tmp_path: Path) -> None:
    learned = read_task(own_files(tmp_path, "regression"), model, None)
    with pytest.raises(InputError, match=r"'A' was fine-tuned for classes, the task has numbers. Name the task"):
        learned.score(Opened("A", "torch", "torch", model, model), worker)
    write(tmp_path / "three", BertForSequenceClassification(config("Bert", num_hidden_layers=1, num_labels=3)))
    learned = read_task(own_files(tmp_path), model, None)
    with pytest.raises(InputError, match="'A' was fine-tuned for the classes LABEL_0, LABEL_1, LABEL_2"):
        learned.score(Opened("A", "torch", "torch", model, tmp_path / "three"), worker)
    with pytest.raises(InputError, match=r"lacks config.json or a tokenizer"):
        learned.score(Opened("A", "torch", "torch", model, tmp_path / "none"), worker)


def test_a_missing_library_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflat.engines.base.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs openvino. Install: pip install 'trainflat\[openvino\]'"):
        comparing.compare([model], backends=["openvino"])
    with pytest.raises(UnknownName):
        comparing.compare([model], backends=["sparse"])


def test_help_shows_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "--help")
    assert code == 0 and "Example: trainflat bench" in " ".join(out.split())


def test_what_a_killed_call_left_is_deleted_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / ".trainflat-0123.tmp" / "0").mkdir(parents=True)
    with pytest.raises(InputError, match="there is no model"):
        comparing.compare([tmp_path / "nothing"])
    assert list(tmp_path.iterdir()) == []
