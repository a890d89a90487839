"""A recipe whose student takes its teacher's place: planned, refused, trained, killed, recorded and told."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.kill import TRAINER, assert_unharmed, kill
from tests.support.runs import own_files, recipe
from tests.support.teachers import LABELS
from trainflat.cli.plans import print_plan
from trainflat.core.errors import InputError
from trainflat.recipe import load_recipe
from trainflat.records.run import Record
from trainflat.report import write_report

PINS = {"name": "pins", "sparsity": 0.6, "every": 1, "window": 2, "schedule": {"name": "cubic", "start": 1, "hold": 3}}
SELF = {"weight": "entropy", "temperature": 2, "renew": "best"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("renewed")
    torch.manual_seed(0)
    for name, options in {"model": {}, "teacher": LABELS, "number": {"num_labels": 1}}.items():
        write(folder / name, BertForSequenceClassification(config("Bert", **options)))
    return folder


def given(place: Path, kind: str = "classification", **training: Any) -> dict[str, Any]:
    section = {"teacher": str(place / "teacher"), **SELF}
    options: dict[str, Any] = {"epochs": 2, "evaluate_every": 2, "distillation": section}
    made = recipe(place / "model", own_files(place, kind), **(options | training))
    return made | {"protocol": {"name": "gradual", "gate": PINS}, "evaluation": {"latency": {"batches": []}}}


def test_the_record_and_the_report_tell_who_was_the_teacher(place: Path, tmp_path: Path) -> None:
    record = trainflat.run(given(place), out=tmp_path / "runs")
    assert Record.load(next((tmp_path / "runs").iterdir())) == record
    assert record.teacher is not None and record.teacher.name == str(place / "teacher")
    [training] = [stage.training for stage in record.stages if stage.training is not None]
    scores = {int(e["step"]): e[f"{record.task.split}/{record.task.metric}"] for e in training.evaluations}
    best = [n for n, v in scores.items() if n < training.steps and v >= max(s for k, s in scores.items() if k <= n)]
    assert training.teacher_steps == best and best[0] == 2
    page = write_report([record], tmp_path / "report").read_text(encoding="utf8")
    assert ", and then from the best model that they had been themselves." in page
    name = next(stage.name for stage in record.stages if stage.training is training)
    assert f"; then the student as it was: {name} after step {', '.join(map(str, best))}" in page


def test_a_section_without_it_leaves_no_trace(place: Path, tmp_path: Path) -> None:
    plain = given(place, distillation=str(place / "teacher"))
    section = {"teacher": str(place / "teacher"), "weight": 0.5, "temperature": 2.0}
    assert load_recipe(plain).resolved()["training"]["distillation"] == section
    nothing = given(place, distillation=section | {"renew": None})
    assert load_recipe(nothing).hash == load_recipe(plain).hash
    record = trainflat.run(plain | {"protocol": "dense"}, out=tmp_path)
    assert "teacher_steps" not in record.stages[0].model_dump()["training"]


def test_check_shows_it(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    print_plan(trainflat.plan(given(place)))
    assert "weight entropy, temperature 2.0, renew best" in capsys.readouterr().out


def test_both_refuse_in_the_same_words_and_leave_nothing(place: Path, tmp_path: Path) -> None:
    numbers = given(place, "regression", distillation={"teacher": str(place / "number"), **SELF})
    numbers["model"] = str(place / "number")
    refused = {
        "weight entropy is for classes and spans, and the task has numbers. Give a share": numbers,
        "before the last of 10 steps, and the first is after 10. Evaluate more often": given(place, evaluate_every=10),
        "before the last of 5 steps, and the first is after 5. Evaluate": given(
            place, epochs=1, evaluate_every="epoch"
        ),
    }
    for message, section in refused.items():
        lines = []
        for call in (trainflat.plan, trainflat.run):
            with pytest.raises(InputError) as error:
                call(section, out=tmp_path / "runs")
            lines.append(str(error.value))
        assert message in lines[0]
        assert lines[0] == lines[1] and "\n" not in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"renew": "last"}, r"training.distillation: renew says whose weights the teacher takes on: best, or left out"),
        ({"weight": "certainty"}, r"in \[0, 1\], got 'certainty'; or entropy, by row"),
    ],
)
def test_options_that_no_recipe_may_have(place: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(given(place, distillation={"teacher": str(place / "teacher"), **SELF, **options}))


@pytest.mark.slow
def test_a_killed_run_with_a_renewed_teacher_ends_like_one_that_was_not(place: Path, tmp_path: Path) -> None:
    points = [
        (f"{TRAINER}.training_step", 9),
        # The weights and the gate are in the checkpoint, the teacher is not.
        ("trainflat.training.features.base:save_tensors", 4),
        ("trainflat.training.features.base:save_tensors", 8),
        (f"{TRAINER}._load_best_model", 1),
    ]
    gate = {"name": "hard-movement", "sparsity": 0.7, "schedule": {"name": "cubic", "start": 2, "hold": 4}}
    section = {"teacher": str(place / "teacher"), **SELF}
    lines = kill(
        tmp_path,
        {"name": "sam", "rho": 0.02, "lr": 2e-3},
        points,
        distillation=section,
        protocol={"name": "gradual", "gate": gate},
    )
    assert_unharmed(tmp_path, lines)
    [whole] = (tmp_path / "runs" / "0").iterdir()
    assert any(stage.training and stage.training.teacher_steps for stage in Record.load(whole).stages)


def test_the_recipe_of_the_docs_is_one() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "distillation.md").read_text(encoding="utf8")
    recipes = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    [section] = [one for one in recipes if "renew: best" in one]
    found = load_recipe(yaml.safe_load(section))
    assert found.training.distillation.renew == "best" and found.protocol.gate.name == "pins"
