"""Engines and the processes that hold them: the model's own answers, the threads that were asked for, and failures."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer, BertForQuestionAnswering, BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from trainflat.commands.bench import worker
from trainflat.commands.bench.model import TorchModel
from trainflat.commands.bench.remote import Answers, Remote
from trainflat.commands.bench.variants import Opened
from trainflat.commands.export import export
from trainflat.core.errors import DamagedFile, InputError
from trainflat.engines import ENGINES, Engine
from trainflat.export import EXPORTERS, Source

FORMATS = {"torch-export": "model.pt2", "onnx": "model.onnx", "openvino": "model.xml"}


def exported(folder: Path, kind: Any, formats: Iterable[str]) -> Path:
    """A model that tells two types of tokens apart, and inside of its folder one folder per format."""
    torch.manual_seed(0)
    model = kind(config("Bert", num_hidden_layers=1, initializer_range=0.5)).eval()
    tokenizer = AutoTokenizer.from_pretrained(write(folder, model))
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    for name in formats:
        (folder / name).mkdir()
        EXPORTERS.build(name).write(Source(folder, model, tokenizer), folder / name)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("engines") / "model", BertForSequenceClassification, FORMATS)


def engines(folder: Path, threads: int = 1) -> Iterator[tuple[str, Engine]]:
    yield "model", TorchModel.open(folder, threads)
    for name, file in FORMATS.items():
        if not (folder / name).is_dir():
            continue
        yield name, ENGINES[name.removesuffix("-export")].open(folder / name / file, threads)
    yield "onnx by openvino", ENGINES["openvino"].open(folder / "onnx" / "model.onnx", threads)


def batch(rows: int, length: int) -> dict[str, np.ndarray]:
    """Padded, with two types of tokens."""
    ids = np.random.default_rng(0).integers(5, 20, (rows, length))
    mask = (np.arange(length) < length - np.arange(rows)[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids % 2}


@pytest.mark.parametrize("size", [(1, 4), (3, 7)])
def test_every_engine_answers_as_the_model(folder: Path, size: tuple[int, int]) -> None:
    check_answers(folder, batch(*size))


def test_spans_have_two_answers(tmp_path: Path) -> None:
    check_answers(exported(tmp_path / "model", BertForQuestionAnswering, ["onnx"]), batch(3, 7))


def check_answers(folder: Path, rows: dict[str, np.ndarray]) -> None:
    with torch.inference_mode():
        wanted = trainflat.load(folder)(**{name: torch.from_numpy(each) for name, each in rows.items()})
    for name, engine in engines(folder):
        answers = engine.run(rows)
        assert len(answers) == len(engine.outputs) == len(wanted)
        for output, answer in zip(engine.outputs, answers, strict=True):
            np.testing.assert_allclose(answer, wanted[output].numpy(), atol=1e-4, err_msg=f"{name} {output}")


def test_answers_are_kept_when_the_next_ones_come(folder: Path) -> None:
    for name, engine in engines(folder):
        first = engine.run(batch(2, 5))
        before = [each.copy() for each in first]
        engine.run({key: value[::-1].copy() for key, value in batch(2, 5).items()})
        assert all(np.array_equal(one, other) for one, other in zip(first, before, strict=True)), name


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_that_were_asked_for(folder: Path, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        for name, engine in engines(folder, threads):
            if name.startswith("onnx by") or name == "openvino":
                model = engine.request.get_compiled_model()
                assert model.get_property("INFERENCE_NUM_THREADS") == threads
                assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
            elif name == "onnx":
                options = engine.session.get_session_options()
                assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
            else:
                assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_process_holds_nothing_but_its_library(folder: Path) -> None:
    code = (
        "import sys, trainflat.commands.bench.worker as w; w._kind('onnx', __import__('pathlib').Path('x.onnx')); "
        "print(sorted({'torch', 'transformers', 'openvino', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_worker_answers_line_by_line(folder: Path) -> None:
    said: list[str] = []
    rows = {name: each.tolist() for name, each in batch(2, 4).items() if name != "token_type_ids"}
    path = str(folder / "onnx" / "model.onnx")
    requests = [
        ["open", {"engine": "onnx", "path": path, "threads": 1}],
        ["hold", {"tokens": rows}],
        ["time", {"calls": 3}],
        ["answer", {}],
        ["open", {"engine": "onnx", "path": path + "x", "threads": 1}],
        ["open", {"engine": "torch", "path": str(folder / "onnx"), "threads": 1}],
    ]
    worker.serve([json.dumps(one) for one in requests], said.append)
    replies: list[dict[str, Any]] = [json.loads(line) for line in said]
    assert replies[:2] == [{"done": None}] * 2 and replies[2]["done"] > 0
    # What the batch lacks are zeros.
    blank = batch(2, 4) | {"token_type_ids": np.zeros((2, 4), dtype=np.int64)}
    wanted = ENGINES["onnx"].open(Path(path), 1).run(blank)
    assert all(np.allclose(a, b) for a, b in zip(replies[3]["done"].values(), wanted, strict=True))
    assert "NoSuchFile" in replies[4]["failed"] and "refused" in replies[5]


def test_a_remote_answers_and_tells_its_times(folder: Path) -> None:
    with Remote("it", "onnx", folder / "onnx" / "model.onnx") as remote:
        remote.open(1)
        rows = batch(2, 4)
        found = Answers(remote)(**{name: torch.from_numpy(each) for name, each in rows.items()})
        engine = ENGINES["onnx"].open(folder / "onnx" / "model.onnx", 1)
        for name, each in zip(engine.outputs, engine.run(rows), strict=True):
            torch.testing.assert_close(found[name], torch.from_numpy(each))
        assert 0 < remote.time(2) < 60
        peak = remote.peak_bytes()
        assert peak is not None and 2e7 < peak < 2e9
    assert remote.process.returncode is not None


def test_a_process_that_dies_is_told_of_in_one_line(folder: Path) -> None:
    with Remote("A, onnx", "onnx", folder / "onnx" / "model.onnx") as remote:
        remote.open(1)
        remote.process.send_signal(signal.SIGKILL)
        with pytest.raises(InputError, match=r"A, onnx cannot run: its process was ended by signal 9, .* memory"):
            remote.time(1)


def test_a_process_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Remote("A", "onnx", folder) as remote, pytest.raises(InputError, match=r"its process ended .without a word"):
        remote.open(1)


def test_workers_end_with_their_driver(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from trainflat.commands.bench.remote import Remote; "
        "remote = Remote('a', 'onnx', Path('x')); print(remote.process.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for _ in range(300):
        try:
            os.kill(int(done.stdout), 0)
            state = Path(f"/proc/{int(done.stdout)}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the worker outlived its driver")


HEADLESS = ["BertModel", "BertForMaskedLM", "BertForTokenClassification"]


@pytest.mark.parametrize("kind", HEADLESS)
def test_without_a_head_there_are_no_answers_to_time_or_to_check(kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", getattr(transformers, kind)(config("Bert", num_hidden_layers=1)))
    for use in (lambda: TorchModel.open(folder, 1), lambda: export(folder, "sparse", tmp_path / "out")):
        with pytest.raises(InputError, match=rf"^{kind} has no head for rows or spans\. Give a model"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("told", "number"),
    [({}, None), ({"size": None}, None), ({"size": "9"}, None), ({"size": 0}, None), ({"size": 9}, 9)],
)
def test_a_config_may_lack_numbers_or_tell_nonsense(told: dict[str, Any], number: int | None, tmp_path: Path) -> None:
    one = Opened("A", "onnx", "onnx", tmp_path / "model.onnx", tmp_path)
    assert one.number("size") is None
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert one.number("size") == number


@pytest.mark.parametrize("text", ["[]", "{", '{"size": 1000000000000}'])
def test_a_config_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"config\.json"):
        Opened("A", "onnx", "onnx", tmp_path / "model.onnx", tmp_path).number("size")
