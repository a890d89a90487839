"""Lines that are drawn together: every setting in which they differ is told, beside what the figure is about."""

import csv
import io
from typing import Any

import pytest

from tests.support.pages import figures_of, markdown
from tests.support.records import make_record
from trainflat.core.margins import Answers
from trainflat.records.run import Record
from trainflat.report import caveats, score_rows, summary_table, write_report
from trainflat.report.differences import differences
from trainflat.report.notes import notes
from trainflat.report.panels import make_panels
from trainflat.report.sections.curve import ScoreCurve
from trainflat.report.static import draw
from trainflat.report.tables import to_csv

SAM = {"name": "sam", "base": "adamw", "lr": 2e-5, "rho": 0.05, "weight_decay": 0.0}
ADAMW = {"name": "adamw", "lr": 2e-5, "weight_decay": 0.0}


def changed(record: Record, key: str, value: Any) -> Record:
    """The same run under another setting."""
    if key.startswith("environment."):
        return record.model_copy(update={"environment": record.environment | {key.partition(".")[2]: value}}).sealed()
    recipe = record.model_dump()["recipe"]
    *path, last = key.split(".")
    section = recipe
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value
    return record.model_copy(update={"recipe": recipe}).sealed()


def rows(*records: Record) -> dict[str, list[str]]:
    (panel,) = make_panels(records)
    return {row["Setting"]: list(row.values())[1:] for row in differences(panel)}


CHANGED = {
    "training.optimizer.weight_decay": 0.01,
    "training.optimizer.lr": 2e-4,
    "training.optimizer.eps": 1e-6,
    "training.batch_size": 16,
    "training.epochs": 4,
    "training.max_length": 64,
    "training.schedule": {"name": "linear", "warmup": 0.1},
    "training.averaging": {"name": "swa", "share": 0.5},
    "task.train": "train_small",
    "protocol.scope": "layer",
    "environment.torch": "2.12.0",
    "environment.threads": 4,
    "environment.gpu": "H200",
}


@pytest.mark.parametrize("key", CHANGED)
def test_every_setting_that_differs_between_methods_is_told_everywhere(key: str):
    one = make_record(optimizer=SAM)
    other = changed(make_record(optimizer=ADAMW), key, CHANGED[key])
    found = rows(one, other)
    assert len(found) == (2 if isinstance(CHANGED[key], dict) else 1)
    name = next(iter(found))
    assert name.startswith(key)
    (panel,) = make_panels([one, other])
    (said,) = [sentence for sentence in caveats([one, other]) if "lines differ in" in sentence]
    assert name in said and said in notes([panel])
    assert name in markdown(one, other)
    back = list(csv.DictReader(io.StringIO(to_csv(score_rows([one, other])))))
    assert all(name in row["differs_in"] for row in back)
    (figure,) = figures_of(ScoreCurve(), [one, other])
    title = draw(figure).get_suptitle()
    assert f"lines differ also in {name.removeprefix('training.')}"[:80] in title


def test_what_the_figure_is_about_is_no_difference():
    many = [
        make_record(optimizer=SAM, seed=1),
        make_record(optimizer=ADAMW, seed=0, sparsities=(0.0, 0.1), name="other"),
        make_record(optimizer=SAM | {"rho": 0.1}),
        make_record(optimizer={"name": "asam", "rho": 0.5, "base": "AdamW", "lr": 2e-5, "weight_decay": 0.0}),
    ]
    assert rows(*many) == {}
    assert caveats(many) == []
    assert rows(make_record()) == {}


def test_another_base_is_a_difference_and_a_default_is_none():
    assert rows(make_record(optimizer=SAM | {"base": "sgd"}), make_record(optimizer=ADAMW))[
        "training.optimizer.base"
    ] == [
        "adamw",
        "sgd",
    ]
    spelled = ADAMW | {"betas": [0.9, 0.999], "eps": 1e-8}
    assert rows(make_record(optimizer=SAM), make_record(optimizer=spelled)) == {}


def test_the_confounded_comparison_of_the_readme():
    found = rows(make_record(optimizer=SAM), make_record(optimizer={"name": "adamw", "lr": 2e-4, "weight_decay": 0.01}))
    assert found == {
        "training.optimizer.lr": ["0.0002", "2e-05"],
        "training.optimizer.weight_decay": ["0.01", "0"],
    }


def test_many_differences_stay_one_short_line():
    one, other = make_record(optimizer=SAM), make_record(optimizer=ADAMW)
    for key, value in CHANGED.items():
        other = changed(other, key, value)
    (said,) = caveats([one, other])
    assert "more)" in said and len(said) < 400
    assert len(rows(one, other)) >= len(CHANGED)


def test_runs_of_one_seed_that_trained_on_other_rows_are_told():
    one, other = make_record(optimizer=SAM), make_record(optimizer=ADAMW)
    train = other.data["train"].model_copy(update={"sha256": "00" * 32})
    other = other.model_copy(update={"data": other.data | {"train": train}}).sealed()
    assert any("trained on different rows" in note for note in notes(make_panels([one, other])))
    assert not any(
        "trained on different rows" in note for note in notes(make_panels([one, make_record(optimizer=ADAMW)]))
    )


def test_scores_of_models_that_learned_nothing_are_marked_everywhere(tmp_path):
    record = make_record(sparsities=(0.0, 0.5))
    answers = Answers(rows=1500, constant=True, common="a", blind="a", baseline=52.7, low=-0.1, high=0.1)
    stages = [record.stages[0], record.stages[1].model_copy(update={"answers": answers})]
    blind = record.model_copy(update={"stages": stages}).sealed()
    assert blind.digest == record.digest
    said = "† STS-B, adamw at 50 %: every answer is a: no better than always answering a, which scores 52.7."
    assert caveats([blind]) == [said] and caveats([record]) == []
    (row,) = summary_table([blind])
    assert row["50 %"].endswith(" †") and not row["0 %"].endswith("†")
    page = write_report([blind], tmp_path, ["html", "md"]).read_text(encoding="utf8")
    assert said in page and f"> {said}" in (tmp_path / "results.md").read_text(encoding="utf8")
    back = list(csv.DictReader(io.StringIO(to_csv(score_rows([blind])))))
    assert [(row["baseline_mean"], row["remark"][:12]) for row in back] == [("", ""), ("52.7", "every answer")]
