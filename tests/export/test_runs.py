"""Contract of the formats: what was written is opened without the model it came from, and answers as that does."""

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

import trainflat
from tests.support.exports import small
from tests.support.families import write
from trainflat.anatomy.params import prunable
from trainflat.commands.export import Checked, _source, export
from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import seal, verify
from trainflat.export import EXPORTERS, Runner, onnx_int8, open_export, openvino_int8
from trainflat.export import onnx as onnx_format
from trainflat.export import openvino as openvino_format
from trainflat.export.openvino import unobserved
from trainflat.export.openvino_int8 import OpenVinoInt8
from trainflat.export.sparse import Sparse
from trainflat.pruning import MagnitudePruner
from trainflat.tasks.stdlib_docs import PARTS, StdlibDocs

ROUNDED = {"int8": None, "onnx-int8": "onnx", "openvino-int8": "openvino"}  # and the format of the same file unrounded


def batch(rows: int, tokens: int) -> dict[str, Tensor]:
    """Of another shape than any that a format was made or checked with, padded, and of words that these had not."""
    ids = torch.randint(4, 15, (rows, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1:, tokens // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@dataclass
class Made:
    name: str
    folder: Path
    model: PreTrainedModel
    checked: Checked


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small()
    MagnitudePruner(model, sparsity=0.5).prune()
    folder = write(tmp_path_factory.mktemp("source") / "pruned", model)
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def graph(source: Path) -> Any:
    """What `traced` gives, which takes seconds."""
    return onnx_format.traced(_source(source, None))


@pytest.fixture(scope="module")
def traced_once(graph: Any, source: Path) -> Iterator[None]:
    converted = openvino_format.converted(_source(source, None))
    with pytest.MonkeyPatch.context() as patch:
        for module in (onnx_format, onnx_int8):
            patch.setattr(module, "traced", lambda _: copy.deepcopy(graph))
        for module in (openvino_format, openvino_int8):
            patch.setattr(module, "converted", lambda _: converted.clone())
        yield


@pytest.fixture(scope="module", params=EXPORTERS)
def made(
    request: pytest.FixtureRequest, source: Path, traced_once: None, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    out = tmp_path_factory.mktemp(request.param) / "out"
    options = ["samples=16"] if request.param == "openvino-int8" else []
    checked = export(source, request.param, out, options)
    return Made(request.param, out, trainflat.load(source), checked)


def opened(made: Made) -> nn.Module:
    return EXPORTERS[made.name].open(made.folder, threads=1).eval()


def test_it_answers_as_the_model_does(made: Made) -> None:
    verify(made.folder)
    assert made.checked.rows == 42 and made.checked.agreement >= (0.9 if made.name in ROUNDED else 1)
    asked = batch(5, 9)
    with torch.no_grad():
        expected, found = (model(**asked)["logits"] for model in (made.model, opened(made)))
    assert found.shape == (5, 2) and found.dtype == torch.float32
    near = {"openvino-int8": 0.5}.get(made.name, 0.15) if made.name in ROUNDED else EXPORTERS.build(made.name).tolerance
    assert (found - expected).abs().max() <= near * expected.abs().max().clamp(min=1)
    assert made.name not in ROUNDED or made.checked.difference > 1e-4  # it is rounded, and the check sees it


def test_what_it_has_no_input_for_is_passed_over(made: Made) -> None:
    model = opened(made)
    if not isinstance(model, Runner):
        assert (made.folder / "trainflat.safetensors").is_file()
        return
    assert (model.inputs, model.outputs) == (("input_ids", "attention_mask"), ("logits",))
    asked = batch(2, 6)
    more = model(**asked, token_type_ids=torch.zeros(2, 6, dtype=torch.long))["logits"]
    (array,) = model.run({name: rows.numpy() for name, rows in asked.items()})
    assert torch.equal(more, torch.from_numpy(array))
    with pytest.raises(TypeError, match="Open it again"):
        copy.deepcopy(model)


def test_it_is_opened_by_its_file(made: Made, tmp_path: Path) -> None:
    if EXPORTERS[made.name].file == "trainflat.safetensors":
        with pytest.raises(InputError, match=r"holds none of model\.onnx, model\.xml, model\.pt2"):
            open_export(made.folder)
        assert not hasattr(trainflat.load(made.folder), "run")
        return
    one, other = open_export(made.folder, threads=1), opened(made)
    assert type(one.engine) is type(other.engine)
    torch.testing.assert_close(one(**batch(3, 7)), other(**batch(3, 7)))


def test_it_tells_nothing_of_the_machine_that_made_it(made: Made) -> None:
    for path in made.folder.iterdir():
        content = path.read_bytes()
        assert b"site-packages" not in content and str(Path(__file__).parents[2]).encode() not in content, path


def test_rounding_makes_it_smaller(made: Made, source: Path) -> None:
    rounded = sum(p.numel() for p in prunable(made.model).values())
    if made.name in ROUNDED:
        whole = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        data = made.folder / ("model.bin" if made.name == "openvino-int8" else EXPORTERS[made.name].file)
        graph = 40_000 if made.name == "onnx-int8" else 0  # bytes of its nodes
        assert data.stat().st_size < whole - 2 * rounded + graph
    assert made.checked.bytes == sum(
        path.stat().st_size for path in made.folder.iterdir() if path.name.startswith(("model.", "trainflat."))
    )


@pytest.mark.parametrize("name", EXPORTERS)
def test_int8_is_no_source(name: str, tmp_path: Path, int8_source: Path) -> None:
    with pytest.raises(InputError, match=r"is int8 already. Export the model that it was made from\.$"):
        export(int8_source, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def int8_source(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "int8"
    export(source, "int8", folder, ["embeddings=true", "head=true", "activations=batch"])
    return folder


def test_options_of_int8_reach_the_model(int8_source: Path) -> None:
    model = trainflat.load(int8_source)
    assert type(model.classifier).__name__ == "Int8Linear" and model.classifier.activations == "batch"
    assert type(model.bert.embeddings.word_embeddings).__name__ == "Int8Embedding"


def test_sparse_and_half_folders_are_sources(source: Path, tmp_path: Path) -> None:
    export(source, "sparse", tmp_path / "sparse")
    found = export(tmp_path / "sparse", "int8", tmp_path / "int8")
    again = export(source, "int8", tmp_path / "again")
    assert (found.difference, found.bytes) == (again.difference, again.bytes)
    half = write(tmp_path / "half", trainflat.load(source).half())
    assert export(half, "torch-export", tmp_path / "program").difference < 1e-4
    assert export(half, "sparse", tmp_path / "kept").difference == 0
    assert trainflat.load(tmp_path / "kept").dtype == torch.float16


def integers(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """int8 matrices of an ONNX file, without their zero points, with their steps."""
    found = {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    for name, value in found.items():
        stem = name.removesuffix("_quantized")
        if stem != name:
            yield value.astype(int) - found[f"{stem}_zero_point"].astype(int), found[f"{stem}_scale"]


@pytest.mark.parametrize(
    ("options", "tables"), [(["head=false"], 0), (["head=true"], 0), (["embeddings=true", "bits=7"], 3)]
)
def test_onnx_int8_rounds_what_was_asked(
    *, options: list[str], tables: int, source: Path, traced_once: None, tmp_path: Path
) -> None:
    """Every weight within half a step of its output channel, or of its table."""
    export(source, "onnx-int8", tmp_path / "out", options)
    found = list(integers(tmp_path / "out" / "model.onnx"))
    assert len(found) == 7 + ("head=true" in options) + tables
    assert sum(step.ndim == 0 for _, step in found) == tables
    weights = [p.detach().numpy() for p in trainflat.load(source).parameters() if p.ndim == 2]
    for value, step in found:
        forms = [form for weight in weights for form in (weight, weight.T) if form.shape == value.shape]
        assert min((np.abs(value * step.astype(float) - form) / step).max() for form in forms) <= 0.5001
        assert step.ndim == 0 or np.abs(value).max() == (64 if "bits=7" in options else 127)


class Seen:
    """Keeps the texts that a format was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
        self.texts: list[Any] = []
        honest = Sparse.write
        monkeypatch.setattr(Sparse, "samples", samples)
        monkeypatch.setattr(Sparse, "write", lambda *given: (self.texts.extend(given[1].texts), honest(*given)))


def test_ranges_come_from_the_task_s_training_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, 9)
    classes = dict(enumerate(PARTS))
    folder = write(tmp_path / "model", small(id2label=classes))
    export(folder, "sparse", tmp_path / "out", task="stdlib-docs")
    training, _ = StdlibDocs().encode(AutoTokenizer.from_pretrained(folder), 32)
    known = {tuple(row["input_ids"]) for row in training.rows}
    assert len(seen.texts) == 9 and all(tuple(row["input_ids"][0].tolist()) in known for row in seen.texts)
    assert {tuple(row) for row in seen.texts} == {("input_ids", "attention_mask")}


def test_without_a_task_they_come_from_text_that_is_not_compared(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch, 9)
    export(source, "sparse", tmp_path / "out")
    assert len(seen.texts) == 9 and all(row["input_ids"].shape[0] == 1 for row in seen.texts)
    monkeypatch.setattr(Sparse, "samples", 0)
    export(source, "sparse", tmp_path / "other")
    assert len(seen.texts) == 9


def test_ranges_need_text(source: Path) -> None:
    with pytest.raises(InputError, match=r"takes ranges from texts, and got none\. Use activations=dynamic"):
        OpenVinoInt8().write(_source(source, None), source)
    assert OpenVinoInt8(activations="dynamic").samples == 0


def test_a_file_that_is_not_what_was_written_is_refused(made: Made, tmp_path: Path) -> None:
    file = EXPORTERS[made.name].file
    if file == "trainflat.safetensors":
        return  # `trainflat.load` reads it, and has tests of its own
    for name in ("sealed", "open"):
        (tmp_path / name).mkdir()
        for path in made.folder.iterdir():
            if name == "sealed" or path.name != "manifest.json":
                content = path.read_bytes()
                (tmp_path / name / path.name).write_bytes(
                    content[: len(content) // 2] if path.name == file else content
                )
    with pytest.raises(DamagedFile, match=file):
        open_export(tmp_path / "sealed")
    with pytest.raises(DamagedFile, match=f"{file} cannot be opened") as failure:
        open_export(tmp_path / "open")
    assert len(str(failure.value).splitlines()) == 1


def test_nobody_is_told_of_the_use_of_openvino(made: Made) -> None:
    open_export(made.folder) if made.name.startswith("openvino") else None
    assert "openvino_telemetry" not in sys.modules


def test_shapes_of_the_example_are_not_in_the_file(made: Made) -> None:
    if made.name == "onnx":
        assert not onnx.load(made.folder / "model.onnx").graph.value_info


def test_who_chose_to_tell_still_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError), unobserved():
        assert sys.modules["openvino_telemetry"] is None
        raise RuntimeError
    assert "openvino_telemetry" not in sys.modules
    chosen = ModuleType("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", chosen)
    with unobserved():
        assert sys.modules["openvino_telemetry"] is chosen
    assert sys.modules["openvino_telemetry"] is chosen
