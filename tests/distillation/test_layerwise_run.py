"""Recipes whose students learn from a teacher's layers: planned, refused, trained, recorded, documented."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from tests.support.teachers import LABELS
from trainflat.cli.plans import print_plan
from trainflat.core.errors import InputError
from trainflat.recipe import load_recipe
from trainflat.records.run import Record
from trainflat.report import write_report

SMALLER = {"name": "structured", "sparsities": [0.4], "rows": 8, "budget": "parameters", "shape": "ragged"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    torch.manual_seed(0)
    wide = LABELS | {"hidden_size": 12, "num_hidden_layers": 6}
    for name, options in {"model": {}, "teacher": LABELS, "wide": wide}.items():
        write(folder / name, BertForSequenceClassification(config("Bert", **options)))
    return folder


def given(place: Path, layerwise: Any, teacher: str | None = "teacher", protocol: Any = None) -> dict[str, Any]:
    taught = {} if teacher is None else {"distillation": {"teacher": str(place / teacher), "weight": 1}}
    made = recipe(place / "model", own_files(place), layerwise=layerwise, **taught)
    one = {"name": "iterative", "sparsities": [0.5]}
    return made | {"protocol": protocol or one, "evaluation": {"latency": {"batches": []}}}


def matched(training: Any) -> dict[str, int]:
    counts = training.features["layerwise"]["matches"]
    return {layer: sum(row.values()) for layer, row in counts.items()}


def test_a_run_records_the_matches_and_the_report_shows_them(place: Path, tmp_path: Path) -> None:
    record = trainflat.run(given(place, {"matching": "nearest"}, "wide"), out=tmp_path / "runs")
    trained = [stage.training for stage in record.stages if stage.training is not None]
    assert [matched(training) for training in trained] == [dict.fromkeys("2356", 5)] * 2  # 40 rows, 8 at a time
    assert all(entry["loss_layerwise"] > 0 for training in trained for entry in training.curve)
    assert Record.load(next((tmp_path / "runs").iterdir())) == record
    page = write_report([record], tmp_path / "report").read_text(encoding="utf8")
    counts = trained[0].features["layerwise"]["matches"]["2"]
    told = ", ".join(f"{number}: {20 * count} %" for number, count in counts.items())
    assert "Layers that learned from the teacher" in page and told in page


@pytest.mark.slow
def test_a_run_is_repeated_to_the_bit(place: Path, tmp_path: Path) -> None:
    made = given(place, {"matching": "random-windows"}, "wide")
    first, again = (trainflat.run(made, out=tmp_path / name) for name in ("first", "again"))
    assert first.digest == again.digest


def test_in_structured_the_dense_model_teaches_its_layers(place: Path, tmp_path: Path) -> None:
    record = trainflat.run(given(place, True, None, SMALLER), out=tmp_path)
    dense, small = record.stages
    assert dense.training.features is None
    assert matched(small.training) == dict.fromkeys("123", 5)
    assert small.structure is not None and small.structure.parameters < small.structure.dense_parameters


def test_both_refuse_in_the_same_words_and_leave_nothing(place: Path, tmp_path: Path) -> None:
    renewed = given(place, {}, "wide")
    renewed["training"]["distillation"] |= {"renew": "best"}
    renewed["training"] |= {"epochs": 2}
    refused: list[tuple[Any, str]] = [
        (
            given(place, {"teacher_layers": [3, 12]}),
            "training.layerwise: teacher_layers are [3, 12], and the teacher has 3 layers. Name",
        ),
        (
            given(place, {"map": "none"}, "wide"),
            "training.layerwise: the teacher's hidden states have width 12, the student's 8. Learn a map",
        ),
        (given(place, {}, None), "training.layerwise learns from the layers of a teacher, and the recipe names none"),
        (
            given(place, {"teacher_layers": [5]}, None, SMALLER),
            "training.layerwise: teacher_layers are [5], and the teacher has 3 layers",
        ),
        (
            renewed,
            "training.layerwise: renew best puts the student, of 3 layers of width 8, in the place of a teacher of 6",
        ),
    ]
    for made, message in refused:
        lines = []
        for call in (trainflat.plan, trainflat.run):
            with pytest.raises(InputError) as error:
                call(made, out=tmp_path / "runs")
            lines.append(str(error.value))
        assert message in lines[0] and lines[0] == lines[1] and "\n" not in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"weight": 2}, r"training.layerwise: weight is the layers' share of the loss, in \[0, 1\], got 2"),
        ({"matching": "last"}, "training.layerwise: no matching is called 'last'"),
        ({"layers": [1]}, "no option of layerwise is called 'layers'"),
        ({"teacher_layers": [0, 3]}, "names 0, the embeddings, which matching ordered does not compare"),
        ("ordered", "layerwise is a mapping of options"),
    ],
)
def test_options_that_no_recipe_may_have(place: Path, section: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(given(place, section))


def test_a_section_is_completed_and_its_absence_leaves_no_trace(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"weight": 0.9, "teacher_layers": None, "matching": "ordered", "padding": "exclude", "map": "shared"}
    assert load_recipe(given(place, True)).resolved()["training"]["layerwise"] == options
    assert load_recipe(given(place, True)) == load_recipe(given(place, options))
    without = given(place, True)
    del without["training"]["layerwise"]
    assert "layerwise" not in load_recipe(without).resolved()["training"]
    monkeypatch.setenv("COLUMNS", "300")
    print_plan(trainflat.plan(given(place, {"weight": 0.5})))
    assert "layerwise" in (said := capsys.readouterr().out)
    assert "weight 0.5, teacher_layers None, matching ordered, padding exclude, map shared" in said


def test_the_page_of_the_docs_is_so() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "distillation.md").read_text(encoding="utf8")
    section = page.partition("## Layers")[2].partition("```yaml\n")[2].partition("```")[0]
    assert load_recipe(yaml.safe_load(section)).resolved()["training"]["layerwise"]["weight"] == 0.9
